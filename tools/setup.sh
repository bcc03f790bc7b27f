# Sourced by demo.sh and check.sh: installs what the build needs (Debian packages, as root or with sudo), and finds the
# repository. Does nothing where everything is installed.
set -eu
root=$(cd "$(dirname "$0")" && pwd)

build_packages='gcc libc6-dev meson ninja-build pkg-config libjansson-dev libfyaml-dev libonig-dev libpcre2-dev libutf8proc-dev
    libxxhash-dev zlib1g-dev libzstd-dev liblapacke-dev libopenblas-openmp-dev'

# install_packages NAME...: those that are missing
install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo > /dev/null; then
        as_root=sudo
    else
        echo "These Debian packages are needed:$missing. Run as root, or install sudo." >&2
        exit 1
    fi
    echo "Installing:$missing"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
}
