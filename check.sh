#!/bin/sh
# Command two: installs what is missing, builds, runs every test, and ends with the counts.
#   ./check.sh              gcc, release
#   ./check.sh --thorough   also clang, and every test again under AddressSanitizer and UndefinedBehaviorSanitizer
# GRAFT_TEST_DATA names a folder with reference data (models, goldens); tests that need it are skipped without it.
. "$(dirname "$0")/tools/setup.sh"
thorough=${1:-}
# shellcheck disable=SC2086
install_packages $build_packages libcmocka-dev binutils
[ "$thorough" != --thorough ] || install_packages clang libclang-rt-14-dev libomp-dev

counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
export GRAFT_TEST_COUNTS="$counts"
status=0

# run_tests BUILD_FOLDER
run_tests() {
    meson test -C "$1" --no-rebuild --print-errorlogs --wrapper "$root/tools/count_tests" || status=1
}

# build BUILD_FOLDER CC OPTION...
build() {
    folder=$1 compiler=$2
    shift 2
    if [ -f "$folder/build.ninja" ]; then # perhaps demo.sh's, which builds no tests
        meson configure "$folder" -Dtests=true
    elif ! CC=$compiler meson setup "$folder" "$root" "$@" > "$folder.setup.log" 2>&1; then
        cat "$folder.setup.log"
        exit 1
    fi
    ninja -C "$folder" --quiet
}

build "$root/build" gcc
run_tests "$root/build"
if [ "$thorough" = --thorough ]; then
    build "$root/build-clang" clang
    ASAN_OPTIONS=detect_leaks=1 build "$root/build-asan" clang -Db_sanitize=address,undefined -Db_lundef=false \
        --buildtype=debugoptimized
    run_tests "$root/build-asan"
fi
awk '{ passed += $1; failed += $2; skipped += $3 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit failed > 0 }' "$counts" || status=1
exit $status
