#!/usr/bin/env bash
# Do the defaults (bfloat16, kept features, ...) change the results of plain float32 training? What made
# results/number_format/.
#
#     bash results/number_format.sh --print     each seed and the mean: docs/performance.md
#
# Everything else: results/common.sh. Left out: --workers, and for seed 2, which benchmarks/end_to_end.py made, --fg_root
# (foreground masks made beforehand) and, in plain mode, test.py's --batch_size 1: no more than rounding.
source "$(dirname "$0")/common.sh"

if [ "$mode" = --print ]; then
  table seeds docs "$FROM"/magnetic_tile-published-resnet18-{plain,default}
  exit
fi

for seed in 0 1 2; do
  for name in plain default; do
    run=$OUTPUT/magnetic_tile-published-resnet18-$name/seed$seed
    flag=
    [ $name = default ] || flag=--plain
    train "$FOLDER" magnetic_tile published resnet18 --seed $seed --output "$run" $flag
    call "$PYTHON" test.py --data_root "$FOLDER" --run "$run"
  done
done
