#!/usr/bin/env bash
# Train the bundled `photo` tokenizer and put it into the package.
#
#   scripts/train_photo.sh CORPUS KODAK [RUN]
#
# CORPUS: a folder with manifest.tsv and train/ (see select_photos.py). KODAK: evaluation photos.
# The run can be stopped and started again; it goes on from its last checkpoint.
set -euo pipefail
corpus=$1 kodak=$2 run=${3:-runs/photo}
scripts=$(dirname "$0")
mkdir -p "$(dirname "$run")"
python "$scripts/select_photos.py" "$corpus" > "$run-photos.txt"
python -m vqtok train photo --data "$run-photos.txt" --validation "$kodak" --out "$run" --name photo \
    --steps 10000 --batch-size 8 --crop 192 --learning-rate 1.5e-3
python "$scripts/bundle_photo.py" "$run" "$corpus" "$kodak"
