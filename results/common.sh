# What the scripts beside this file share: paths, and what their arguments mean. Not called on its own.
#
#     bash results/main.sh                  run all commands; runs go to runs/main/
#     bash results/main.sh --commands       print them instead
#     bash results/main.sh --print [TABLE]  print a table from the files of results/main/
#
# Environment variables: MVTEC, MVTEC3D, FOLDER (data sets), DTD (textures), WEIGHTS (a state dict of torchvision's
# ResNet-18, IMAGENET1K_V1, or `default`), WEIGHTS50 (one of a ResNet-50 of the first arrangement), OUTPUT (folder for
# runs), FROM (folder of the runs to print), PYTHON. Paths count from the repository's root.
set -euo pipefail
question=$(basename "$0" .sh)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${PYTHON:=python}" "${MVTEC:=data/mvtec}" "${MVTEC3D:=data/mvtec3d}" "${FOLDER:=data/folder}"
: "${DTD:=data/dtd/images}" "${WEIGHTS:=weights/resnet18_trunk.pth}" "${WEIGHTS50:=weights/resnet50_v1_trunk.pth}"
: "${OUTPUT:=runs/$question}" "${FROM:=results/$question}"
mode=${1:-}
case $mode in
  "" | --commands | --print) ;;
  *) echo "usage: bash results/$question.sh [--commands | --print [TABLE]]" >&2; exit 2 ;;
esac

# Run a command, or print it.
call() { if [ "$mode" = --commands ]; then echo "$*"; else "$@"; fi; }

# Train and score: train DATA_ROOT CATEGORY rd4ad|patchcore|published|robust resnet18|resnet50|lite0 FLAGS...
train() {
  local root=$1 category=$2 recipe=(--recipe "$3") teacher=(--backbone resnet18 --weights "$WEIGHTS")
  case $3 in rd4ad | patchcore) recipe=(--method "$3") ;; esac
  case $4 in
    resnet50) teacher=(--backbone resnet50_v1 --weights "$WEIGHTS50") ;;
    lite0) teacher=(--backbone efficientnet_lite0 --weights bundled) ;;
  esac
  call "$PYTHON" train.py --data_root "$root" --categories "$category" --aux_path "$DTD" "${recipe[@]}" "${teacher[@]}" \
    --epochs_stage1 20 --epochs_stage2 20 "${@:5}"
}

# Print a table: table NAME PAGE_FOLDER RUN...
table() { "$PYTHON" benchmarks/accuracy.py "${@:3}" --table "$1" --links "$2"; }
