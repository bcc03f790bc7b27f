#!/bin/sh
# Fine-tuning speed and memory, Graft beside HF Transformers + PEFT, on the same rows in one run: LoRA r 16 on all linear
# layers, Alpaca rows cut at 512 tokens, f32 arithmetic. Rows a step of each case: the environment's ROWS, else "1 8".
#
# usage: bench/fine_tune.sh MODEL_DIR ALPACA.json [STEPS]        CSV on stdout
#   GRAFT    the program (default build/programs/graft)
#   PYTHON   a python with torch, transformers and peft, and
#   GRAFT_PEERS  the folder of hf_peft_step.py: without either, the peer's lines are left out
#   MEMORY_LIMIT one more line of Graft at one row a step, held to this much ("650M")
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
model=$1 data=$2 steps=${3:-24}
graft=${GRAFT:-$root/build/programs/graft}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
flags=$(sed -n 's/^flags[^:]*: //p' /proc/cpuinfo | head -n 1 | tr ' ' '\n' | grep -E '^(avx2|fma|f16c|avx512f|avx512_vnni|amx_bf16|amx_int8)$' | tr '\n' ' ')
commit=$(git -C "$root" rev-parse --short HEAD 2> /dev/null || echo unknown)
echo "program,commit,machine,flags,threads,model,rows_per_step,steps,tokens_per_s,peak_rss_mib,loss_first,loss_last"

number() { # FILE KEY
    sed -n "s/.*\"$2\": \([-0-9.e+]*\).*/\1/p" "$1" | head -n 1
}

run_graft() { # NAME ROWS_PER_STEP STEPS [OPTIONS]
    name=$1 rows=$2 n=$3
    shift 3
    f=$work/$name-$rows.json
    "$graft" train --quiet --json --model "$model" --data "$data" --output-dir "$work/out-$name-$rows" --chat-template none \
        -r 16 --lora-alpha 32 --target-modules all-linear --max-length 512 --learning-rate 2e-4 \
        --lr-scheduler-type constant --no-shuffle --save-steps 0 --max-steps "$n" \
        --per-device-train-batch-size "$rows" "$@" > "$f"
    printf '%s,%s,%s,%s,%s,%s,%s,%s,%.1f,%s,%.4f,%.4f\n' "$name" "$commit" "$cpu" "$flags" "$(nproc)" "$(basename "$model")" \
        "$rows" "$n" "$(number "$f" tokens_per_second)" "$(($(number "$f" peak_memory_bytes) / 1048576))" \
        "$(number "$f" first_loss)" "$(number "$f" last_loss)"
}

run_peer() { # ROWS_PER_STEP STEPS
    versions=$("$PYTHON" -c 'import peft, torch, transformers as t
print("torch %s transformers %s peft %s" % (torch.__version__, t.__version__, peft.__version__))' 2> /dev/null)
    "$PYTHON" "$GRAFT_PEERS/hf_peft_step.py" "$model" --dtype float32 --batch "$1" --seq 512 --steps "$2" --data "$data" \
        --no-header 2> /dev/null | awk -F, -v OFS=, -v versions="$versions" -v cpu="$cpu" -v flags="$flags" -v steps="$2" \
        '{ print "hf_peft", versions, cpu, flags, $9, $1, $4, steps, $11, $12, $13, $14 }'
}

at_least() { # N LEAST
    echo $(($1 > $2 ? $1 : $2))
}

for rows in ${ROWS:-1 8}; do
    run_graft graft "$rows" "$(at_least $((steps / rows)) 3)"
    if [ -n "${PYTHON:-}" ] && [ -n "${GRAFT_PEERS:-}" ]; then
        run_peer "$rows" "$(at_least $((steps / rows)) 4)"
    fi
done
if [ -n "${MEMORY_LIMIT:-}" ]; then
    run_graft "graft_$MEMORY_LIMIT" 1 "$steps" --memory-limit "$MEMORY_LIMIT"
fi
