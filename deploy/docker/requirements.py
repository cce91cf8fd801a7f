"""Prints what an image must install besides ItemForge itself: `requirements.py EXTRA... [+PACKAGE...]`.

So the libraries, most of an image, lie in a layer of their own that changes with pyproject.toml only.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
needs = list(project["dependencies"])
for name in sys.argv[1:]:
    needs += [name[1:]] if name.startswith("+") else project["optional-dependencies"][name]
sys.stdout.writelines(f"{need}\n" for need in needs)
