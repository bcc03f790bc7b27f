#!/bin/sh
# Fine-tuning speed and memory, Graft beside HF Transformers + PEFT, on the same rows in one run: LoRA r 16 on all linear
# layers, Alpaca rows cut at 512 tokens, f32 arithmetic.
#
# usage: bench/fine_tune.sh MODEL_DIR ALPACA.json [STEPS]        CSV on stdout
#   GRAFT    the program (default build/programs/graft)
#   PYTHON   a python with torch, transformers and peft, and
#   GRAFT_PEERS  the folder of hf_peft_step.py: without either, the peer's lines are left out
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
model=$1 data=$2 steps=${3:-24}
graft=${GRAFT:-$root/build/programs/graft}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
flags=$(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1 | tr ' ' '\n' | grep -E '^(avx2|fma|f16c|avx512f|avx512_vnni|amx_bf16|amx_int8)$' | tr '\n' ' ')
echo "program,machine,flags,threads,model,rows_per_step,steps,tokens_per_s,peak_rss_mib,loss_first,loss_last"

number() { # FILE KEY
    sed -n "s/.*\"$2\": \([-0-9.e+]*\).*/\1/p" "$1" | head -n 1
}

run_graft() { # ROWS_PER_STEP STEPS
    "$graft" train --quiet --json --model "$model" --data "$data" --output-dir "$work/out-$1" --chat-template none \
        -r 16 --lora-alpha 32 --target-modules all-linear --max-length 512 --learning-rate 2e-4 \
        --lr-scheduler-type constant --no-shuffle --save-steps 0 --max-steps "$2" \
        --per-device-train-batch-size "$1" > "$work/graft-$1.json"
    f=$work/graft-$1.json
    echo "graft,$cpu,$flags,$(nproc),$(basename "$model"),$1,$2,$(number "$f" tokens_per_second),$(($(number "$f" peak_memory_bytes) / 1048576)),$(number "$f" first_loss),$(number "$f" last_loss)"
}

run_peer() { # ROWS_PER_STEP STEPS
    "$PYTHON" "$GRAFT_PEERS/hf_peft_step.py" "$model" --dtype float32 --batch "$1" --seq 512 --steps "$2" --data "$data" \
        --no-header 2> /dev/null | awk -F, -v OFS=, -v cpu="$cpu" -v flags="$flags" -v steps="$2" \
        '{ print "hf_peft", cpu, flags, $9, $1, $4, steps, $11, $12, $13, $14 }'
}

for rows in 1 8; do
    run_graft "$rows" $((steps / rows > 3 ? steps / rows : 3))
    if [ -n "${PYTHON:-}" ] && [ -n "${GRAFT_PEERS:-}" ]; then
        run_peer "$rows" $((steps / rows > 4 ? steps / rows : 4))
    fi
done
