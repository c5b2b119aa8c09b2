#!/usr/bin/env bash
# Train a bundled tokenizer and its prior from nothing, and put both into the package.
#
#   scripts/train_bundled.sh photo KODAK [WORK]
#   scripts/train_bundled.sh photo-lm KODAK [WORK]
#   scripts/train_bundled.sh audio ...              (the arguments of train_audio.sh)
#
# KODAK: evaluation photos, which are never trained on. WORK (default: work): where the training
# photos are collected (see get_corpus.py) and where the run goes. The version that was bundled
# before moves to NAME@N. Whatever stops it, the same command goes on: downloads and training from
# where they were, the card and the prior from their beginning.
# STEPS, LATENTS and PRIOR_STEPS shorten it, to try it out.
set -euo pipefail
usage() {
    echo "usage: train_bundled.sh photo|photo-lm KODAK [WORK], or audio and what train_audio.sh takes" >&2
    exit 2
}
[[ $# -ge 2 ]] || usage
name=$1
shift
scripts=$(dirname "$0")
# Large tensors are reused, not given back to the system after every step.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4000000000
case $name in
photo) longest=1024  # a crop shows more of a smaller photo
    recipe="--steps ${STEPS:-10000} --batch-size 8 --crop 192 --learning-rate 1.5e-3" ;;
photo-lm) longest=2048
    recipe="--steps ${STEPS:-3600} --batch-size 8 --crop 256 --learning-rate 1.5e-3 --save-every 300"
    # Then the blocks go: the steps between pixels count, too.
    further="--set edges=0.2 --steps ${STEPS:-5000} --batch-size 8 --crop 256 --learning-rate 1e-3 --save-every 300" ;;
audio) exec "$scripts/train_audio.sh" "$@" ;;
*) usage ;;
esac
kodak=$1 work=${2:-work}
[[ -d $kodak ]] || { echo "no folder of evaluation photos: $kodak" >&2; exit 2; }
mkdir -p "$work"
python "$scripts/get_corpus.py" "$work/corpus"
photos="$work/photos-$longest.txt"
python "$scripts/select_photos.py" "$work/corpus" --longest "$longest" > "$photos"
# shellcheck disable=SC2086
python -m vqtok train "$name" --data "$photos" --validation "$kodak" \
    --out "$work/$name" --name "$name" --threads 1 $recipe
runs=("$work/$name")
if [[ ${further:-} ]]; then
    # shellcheck disable=SC2086
    python -m vqtok train "$name" --data "$photos" --validation "$kodak" --init "$work/$name" \
        --out "$work/$name-2" --name "$name" --seed 1 --threads 1 $further
    # And its codebook is fitted to far more latents than a batch has.
    [[ -f $work/$name-3/config.json ]] ||
        python "$scripts/refit_codebook.py" "$work/$name-2" "$photos" "$work/$name-3" \
            --latents "${LATENTS:-1600000}"
    runs+=("$work/$name-2" "$work/$name-3")
fi
python "$scripts/bundle_photo.py" "$name" "$work/corpus" "$kodak" "${runs[@]}"
# Twice: the second knows codes that were chosen by the first's bits, too.
python "$scripts/train_priors.py" "$name" "$work/corpus" --steps "${PRIOR_STEPS:-3000}"
python "$scripts/train_priors.py" "$name" "$work/corpus" --steps "${PRIOR_STEPS:-6000}"
