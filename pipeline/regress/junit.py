"""A comparison with a baseline as JUnit XML, which GitHub, GitLab, Jenkins and others read: one test case each."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from pipeline.regress.compare import BaselineComparison, Regression
from pipeline.regress.text import named, numbers
from tasks.files.atomic import write_whole

#: What XML 1.0 cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(found: Regression) -> str:
    """A failure is a regression; where there is no evidence the case is skipped, with what could have been found."""
    counts = {"failures": len(found.having("regressed")), "errors": 0, "skipped": len(found.having("no evidence"))}
    suite = _suite(f"lines regress {found.run.about['name']}", len(found.comparisons), counts)
    for comparison in found.comparisons:
        _case(suite, comparison)
    return _text(suite)


def junit_error(place: str, cause: str) -> str:
    """A suite that says why nothing could be compared."""
    suite = _suite(f"lines regress {place}", 1, {"failures": 0, "errors": 1, "skipped": 0})
    case = ET.SubElement(suite[0], "testcase", {"classname": "lines regress", "name": "comparable"})
    ET.SubElement(case, "error", {"message": _legal(cause.splitlines()[0]), "type": "error"}).text = _legal(cause)
    return _text(suite)


def write(path: Path, text: str) -> None:
    """Write whole or not at all, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _suite(name: str, tests: int, counts: dict[str, int]) -> ET.Element:
    """The root, with one suite in it."""
    numbers_of = {"tests": str(tests), **{key: str(value) for key, value in counts.items()}, "time": "0"}
    root = ET.Element("testsuites", {"name": _legal(name), **numbers_of})
    ET.SubElement(root, "testsuite", {"name": _legal(name), **numbers_of})
    return root


def _case(root: ET.Element, c: BaselineComparison) -> None:
    about = {"classname": _legal(c.arm), "name": _legal(named(c)), "time": "0"}
    case = ET.SubElement(root[0], "testcase", about)
    said = _legal(numbers(c))
    if c.verdict == "regressed":
        ET.SubElement(case, "failure", {"message": said, "type": "regression"}).text = said
    elif c.verdict == "no evidence":
        ET.SubElement(case, "skipped", {"message": f"no evidence: {said}"})
    else:
        ET.SubElement(case, "system-out").text = f"{c.verdict}: {said}"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)


def _text(root: ET.Element) -> str:
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
