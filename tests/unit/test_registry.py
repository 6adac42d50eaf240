"""Proves that look-ups suggest near names, and that a user's module registers tasks once in each process."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.moved_modules import MOVED
from tasks.plugins import load_plugins
from tasks.registry import BACKBONES, TASKS, Registry, check_options


def test_an_unknown_name_suggests_near_ones() -> None:
    registry: Registry[int] = Registry("sampler")
    registry.register("random", 1)
    with pytest.raises(ValueError, match="unknown sampler 'randon': did you mean 'random'"):
        registry["randon"]
    with pytest.raises(ValueError, match="unknown sampler 'x': known: random"):
        registry["x"]


def test_a_name_is_taken_once() -> None:
    registry: Registry[object] = Registry("task")
    registry.register("a", test_an_unknown_name_suggests_near_ones)
    registry.register("a", test_an_unknown_name_suggests_near_ones)
    with pytest.raises(ValueError, match="task 'a': already registered"):
        registry.register("a", test_a_name_is_taken_once)


def test_lazy_entries_are_imported_at_the_first_look_up() -> None:
    registry: Registry[object] = Registry("thing")
    registry.register("path", "pathlib:Path")
    assert "path" in registry and list(registry) == ["path"]
    assert registry["path"] is Path


def test_unknown_options_are_refused_with_near_names() -> None:
    check_options("tasks.a", ["templates"], ["templates"])
    with pytest.raises(ValueError, match=r"tasks\.a\.template: unknown option; did you mean 'templates'"):
        check_options("tasks.a", ["template"], ["templates", "batch_size"])


def test_a_plugin_file_is_run_once_and_registers(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from tasks.registry import TASKS\n\n\ndef load(request, backbone, progress):\n    return 'loaded'\n\n\n"
        "TASKS.register('plugin-of-a-test', load)\n"
    )
    load_plugins([str(file), str(file)])
    loaded: object = TASKS["plugin-of-a-test"](None, None, None)
    assert loaded == "loaded"


def test_a_plugin_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('oh')")
    with pytest.raises(ValueError, match=r"plugins: cannot import .*broken\.py.*RuntimeError: oh"):
        load_plugins([str(tmp_path / "broken.py")])
    with pytest.raises(ValueError, match="no such file"):
        load_plugins([str(tmp_path / "absent.py")])
    with pytest.raises(ValueError, match="no_such_module_here"):
        load_plugins(["no_such_module_here"])


def test_the_registry_needs_neither_torch_nor_open_clip() -> None:
    assert "open_clip" in BACKBONES
    code = "import sys, tasks.registry; assert not {'torch', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_old_module_names_lead_to_the_new_modules() -> None:
    code = """
import sys, warnings
warnings.simplefilter("error")
from tasks import moved_modules
moved_modules.install()
import tasks.images
assert "torch" not in sys.modules, "nothing is imported before it is used"
warnings.simplefilter("ignore")
from tasks.images import ImageRecord
import tasks.vision
assert tasks.images.ImageRecord is ImageRecord is tasks.vision.ImageRecord
assert not hasattr(tasks.images, "no_such_name") and not hasattr(tasks.vision, "no_such_name")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", MOVED.values())
def test_moved_modules_exist(module: str) -> None:
    assert importlib.util.find_spec(module)
