#!/bin/sh
# Command one: installs what is missing, builds, and teaches the bundled model a task it can't do: turning a sentence into a
# record. Shows before, after, cost and loss curve; some twenty seconds after the build.
. "$(dirname "$0")/tools/setup.sh"
# shellcheck disable=SC2086 # a list of words
install_packages $build_packages
[ -f "$root/build/build.ninja" ] || meson setup "$root/build" "$root" -Dtests=false > "$root/build.setup.log" 2>&1 || {
    cat "$root/build.setup.log"
    exit 1
}
ninja -C "$root/build" --quiet programs/graft examples/exact_match
graft=$root/build/programs/graft
example=$root/examples/bundled
out=${1:-$(mktemp -d)/record-adapter}

show_answers() { # [--adapter DIR]
    head -n 3 "$example/task_test.jsonl" | while read -r row; do
        sentence=$(printf '%s' "$row" | sed 's/^{"prompt": "//; s/\\nRecord:.*//')
        printf '  %s\n' "$sentence"
        answer=$("$graft" generate --quiet --model "$example/model" "$@" --max-new-tokens 40 --prompt "$sentence
Record:")
        printf '    Record:%s\n' "$(printf '%s' "$answer" | tr '\n' ' ')"
    done
}

echo; echo "== The model before =="
show_answers
before=$("$root/build/examples/exact_match" "$example/model" - "$example/task_test.jsonl")
echo "  exact answers on unseen rows: $before"

echo; echo "== What the fine-tune will cost =="
"$graft" plan "$example/task.yaml" --model "$example/model" --data "$example/task_train.jsonl"

echo; echo "== Training =="
"$graft" train "$example/task.yaml" --model "$example/model" --data "$example/task_train.jsonl" --output-dir "$out"

echo; echo "== The model after =="
show_answers --adapter "$out"
after=$("$root/build/examples/exact_match" "$example/model" "$out" "$example/task_test.jsonl")
echo "  exact answers on unseen rows: $after (before: $before)"
echo
echo "The adapter is in $out: report.html shows the loss curve, and HF PEFT loads it as it is."
