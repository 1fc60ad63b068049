#!/usr/bin/env bash
# Run a chapter as a launch button would: a fresh environment without dlcore, a folder without the repository.
# The first cell must install dlcore from the repository at this commit; the rest runs at quick size.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
maker=${MAKER:-$root/.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cd "$root"
commit=$(git rev-parse HEAD)
BOOK_DLCORE_SOURCE="git+file://$root@$commit" "$maker" -m book.launch "$folder/branch"
"$python" -m venv "$folder/venv"
bin=$folder/venv/bin
"$bin/python" -m pip install --quiet --disable-pip-version-check nbclient ipykernel

cd "$folder/branch/chapters"
cat > "$folder/run.py" <<'PYTHON'
import sys

import nbformat
from nbclient import NotebookClient

nb = nbformat.read(sys.argv[1], as_version=4)
nb.cells.append(nbformat.v4.new_code_cell("import dlcore; print(dlcore.__file__)"))
NotebookClient(nb, timeout=900, kernel_name="python3").execute()
print(nb.cells[-1].outputs[0].text, end="")
PYTHON
if "$bin/python" -c "import dlcore" 2>/dev/null; then
    echo "dlcore is there before the first cell: this would show nothing." >&2
    exit 1
fi
chapter=${CHAPTER:-$(ls | head -1)}
where=$(env -u PYTHONPATH DLCORE_SIZE=quick PATH="$bin:$PATH" "$bin/python" "$folder/run.py" "$chapter")
case $where in
    "$folder"/venv/*) echo "$chapter ran with dlcore from ${commit:0:12}, installed by its first cell." ;;
    *) echo "dlcore came from $where, expected from the fresh environment." >&2; exit 1 ;;
esac

# What Binder installs, dlcore included, and its way to show the notebooks.
"$bin/python" -m pip install --quiet --disable-pip-version-check -r "$folder/branch/binder/requirements.txt"
"$bin/jupyter" lab --version
