#!/usr/bin/env bash
# Do synthetic anomalies on held-out training images choose a better epoch than the last one? What made
# results/epoch_selection/.
#
#     bash results/epoch_selection.sh --print     what they foretell, and what choosing by them gains: docs/accuracy_epochs.md
#
# Everything else: results/common.sh. The commands need code that has --select: commit e57759b, which made these files, and
# later ones up to 9eb076e; since then it is gone, as it gained no I-AUROC. Left out: --workers, which changes no figure.
source "$(dirname "$0")/common.sh"

if [ "$mode" = --print ]; then
  table synthetic docs "$FROM"/{tire,magnetic_tile}-{rd4ad,published,robust}-lite0
  exit
fi

for recipe in rd4ad published robust; do
  flags=(--select synthetic --eval_every 2 --seeds 0 1)
  train "$MVTEC3D" tire $recipe lite0 "${flags[@]}" --output "$OUTPUT/tire-$recipe-lite0"
  train "$FOLDER" magnetic_tile $recipe lite0 "${flags[@]}" --output "$OUTPUT/magnetic_tile-$recipe-lite0"
done
