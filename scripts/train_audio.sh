#!/usr/bin/env bash
# Train the bundled `audio` tokenizer and put it into the package.
#
#   scripts/train_audio.sh WORK CORPUS SPEECH MUSIC SFX [RUN]
#
# WORK: where training sounds are collected (see get_sounds.py). CORPUS: more of them. SPEECH,
# MUSIC, SFX: folders of evaluation sounds. RUN (default: runs/audio): where the run goes. Needs the
# extra `bench`. Whatever stops it, the same command goes on: downloads and training from where they
# were, what comes after them from its beginning. STEPS and PRIOR_STEPS shorten it, to try it out.
set -euo pipefail
[[ $# -ge 5 ]] || { echo "usage: train_audio.sh WORK CORPUS SPEECH MUSIC SFX [RUN]" >&2; exit 2; }
work=$1 corpus=$2 speech=$3 music=$4 sfx=$5 run=${6:-runs/audio}
scripts=$(dirname "$0")
# What would only fail after hours fails now.
for folder in "$speech" "$music" "$sfx"; do
    [[ -d $folder ]] || { echo "no folder of evaluation sounds: $folder" >&2; exit 2; }
done
[[ -f $corpus/manifest.tsv ]] || { echo "no corpus (it has a manifest.tsv): $corpus" >&2; exit 2; }
python -c "import av, pesq, pystoi, vqtok" || { echo "needs vqtok with its extra bench" >&2; exit 1; }
# Large tensors are reused, not given back to the system after every step.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4000000000
mkdir -p "$(dirname "$run")"
python "$scripts/get_sounds.py" "$work" "$corpus"
python -m vqtok train audio --data "$work/sounds.txt" --validation "$speech" --out "$run" \
    --name audio --init audio@1 --steps "${STEPS:-4500}" --batch-size 12 --crop 28800 \
    --learning-rate 0.0008 --save-every 300 --threads 1
python "$scripts/bundle_audio.py" "$run"
python "$scripts/train_priors.py" audio "$work/prior.txt" "$speech" "$music" --afresh \
    --steps "${PRIOR_STEPS:-9000}" --batch-size 3072 --threads 2
rates="0 1 2 4 6 8 10"
python "$scripts/evaluate_audio.py" audio "$speech" --speech --codebooks $rates --json \
    > "$work/speech.jsonl"
python "$scripts/evaluate_audio.py" audio "$music" --codebooks $rates --json > "$work/music.jsonl"
python "$scripts/evaluate_audio.py" audio "$sfx" --codebooks $rates --json > "$work/sfx.jsonl"
python "$scripts/bundle_audio.py" "$run" "$work/sources.tsv" \
    "$work/speech.jsonl" "$work/music.jsonl" "$work/sfx.jsonl"
