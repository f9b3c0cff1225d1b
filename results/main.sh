#!/usr/bin/env bash
# How good are the methods, with several teachers, on six categories? Three seeds each, of what is trained with ResNet-50
# one; what made results/main/.
#
#     bash results/main.sh --print            README's table
#     bash results/main.sh --print runs       every run with efficientnet_lite0, spread, swing, seconds: docs/accuracy_runs.md
#     bash results/main.sh --print resnets    the same with ResNets: docs/accuracy_runs_resnets.md
#     bash results/main.sh --print kinds      loose pills by kind of defect: docs/accuracy_runs.md
#     bash results/main.sh --print protocol   what choosing the epoch on the test set would have given: docs/accuracy_epochs.md
#
# Everything else: results/common.sh. --precision auto was bf16 on that machine. Left out: --workers, which changes no
# figure. Seeds are scored at the end of train.py. Tables leave out runs that have not been made.
source "$(dirname "$0")/common.sh"

# The folders that exist of a category, with all methods, of teachers: made CATEGORY TEACHER...
made() {
  local method teacher
  for method in rd4ad patchcore published robust; do
    for teacher in "${@:2}"; do
      if [ -d "$FROM/$1-$method-$teacher" ]; then echo "$FROM/$1-$method-$teacher"; fi
    done
  done
}

# Those of all categories: all_made TEACHER...
all_made() {
  local category
  for category in tire magnetic_tile pill loose_pills bottle hazelnut_toy; do made "$category" "$@"; done
}

if [ "$mode" = --print ]; then
  case ${2:-summary} in
    summary) table summary . $(all_made resnet18 lite0) ;;
    runs) table runs docs $(all_made lite0) ;;
    resnets) table runs docs $(all_made resnet18 resnet50) ;;
    kinds) table kinds docs $(made loose_pills resnet18 resnet50 lite0) ;;
    protocol) table protocol docs "$FROM"/{tire,magnetic_tile}-{rd4ad,published}-resnet18 ;;
    *) echo "tables: summary, runs, resnets, kinds, protocol" >&2; exit 2 ;;
  esac
  exit
fi

# DATA_ROOT CATEGORY RECIPE TEACHER FLAGS...
three_seeds() { train "$@" --seeds 0 1 2 --output "$OUTPUT/$2-$3-$4"; }
one_seed() { train "$@" --seeds 0 --output "$OUTPUT/$2-$3-$4"; }

for recipe in rd4ad published; do
  three_seeds "$MVTEC3D" tire $recipe resnet18 --precision bf16 --eval_every 2
  call "$PYTHON" test.py --data_root "$MVTEC3D" --run "$OUTPUT/tire-$recipe-resnet18" --resolution native
  three_seeds "$FOLDER" magnetic_tile $recipe resnet18 --precision bf16 --eval_every 2
  call "$PYTHON" test.py --data_root "$FOLDER" --run "$OUTPUT/magnetic_tile-$recipe-resnet18" --resolution native
  three_seeds "$MVTEC3D" tire $recipe lite0 --eval_every 1
  three_seeds "$FOLDER" magnetic_tile $recipe lite0 --eval_every 1
  for teacher in resnet18 lite0; do
    three_seeds "$MVTEC" bottle $recipe $teacher --eval_every 10
    three_seeds "$FOLDER" hazelnut_toy $recipe $teacher --eval_every 10
    three_seeds "$MVTEC" pill $recipe $teacher --eval_every 9
    three_seeds "$FOLDER" loose_pills $recipe $teacher --eval_every 9
  done
done
for teacher in resnet18 lite0; do
  three_seeds "$MVTEC3D" tire robust $teacher --eval_every 9
  three_seeds "$FOLDER" magnetic_tile robust $teacher --eval_every 9
  three_seeds "$MVTEC" pill robust $teacher --eval_every 9
  three_seeds "$FOLDER" loose_pills robust $teacher --eval_every 9
  three_seeds "$MVTEC" bottle robust $teacher --eval_every 9
  three_seeds "$FOLDER" hazelnut_toy robust $teacher --eval_every 9
done
for teacher in resnet18 lite0 resnet50; do
  three_seeds "$MVTEC3D" tire patchcore $teacher
  three_seeds "$FOLDER" magnetic_tile patchcore $teacher
  three_seeds "$MVTEC" pill patchcore $teacher
  three_seeds "$FOLDER" loose_pills patchcore $teacher
  three_seeds "$MVTEC" bottle patchcore $teacher
  three_seeds "$FOLDER" hazelnut_toy patchcore $teacher
done
one_seed "$MVTEC" pill robust resnet50 --eval_every 9
one_seed "$MVTEC3D" tire robust resnet50 --eval_every 9
one_seed "$FOLDER" magnetic_tile robust resnet50 --eval_every 9
one_seed "$FOLDER" loose_pills robust resnet50 --eval_every 9
one_seed "$MVTEC3D" tire rd4ad resnet50 --eval_every 9
one_seed "$FOLDER" hazelnut_toy robust resnet50 --eval_every 9
one_seed "$FOLDER" hazelnut_toy rd4ad resnet50 --eval_every 9
