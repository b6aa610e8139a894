#!/bin/sh
# Every program of the toolbox says its version; the first that does not fails the build of the image.
set -eu
git --version
python3 --version
python3 -m pytest --version
python3 -m coverage --version
ruff --version
node --version
npm --version
jest --version
eslint --version
tsc --version
go version
gofmt -h 2>&1 | head -n 1
rustc --version
cargo --version
cargo clippy --version
rustfmt --version
shellcheck --version
chromium --version
make --version
prlimit --version
