"""What every start of the environment's Python does: next to nothing, until a module is imported that has patches."""

import os
import subprocess
import sys

import pytest

from lingbi.engine.patches import CLIP_CONFIG, CLIP_NAME
from lingbi.hook import STOCK

AT_FIRST = "import sys; print(*sorted({'asyncio', 'inspect', 'wrapt'} & set(sys.modules)))"
PATCHED = f"""
from lingbi import hook
hook.PATCHES["like_lmdeploys"] = ("engine.patches:offline_clip",)
import like_lmdeploys
print(like_lmdeploys._CLIPVisionModel_from_pretrained({CLIP_NAME!r}))
"""


def said_by(code: str, **environment) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_start_imports_nothing_that_most_commands_do_without():
    assert said_by(AT_FIRST) == ""


@pytest.mark.parametrize(("environment", "expected"), [({}, str(CLIP_CONFIG)), ({STOCK: "1"}, CLIP_NAME)])
def test_a_patch_is_applied_when_its_module_is_imported_unless_stock_is_asked_for(environment, expected, tmp_path):
    (tmp_path / "like_lmdeploys.py").write_text("def _CLIPVisionModel_from_pretrained(name): return name\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert said_by(PATCHED, PYTHONPATH=path, **environment) == expected
