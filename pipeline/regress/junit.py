"""A comparison with a baseline as JUnit XML, which GitHub, GitLab, Jenkins and others read: one test case each."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from pipeline.regress.compare import BaselineComparison, Regression
from pipeline.regress.text import comparison_numbers, task_label

#: Characters that XML 1.0 cannot contain, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_report(found: Regression) -> str:
    """Return a regression as a failure, and a comparison without evidence as skipped, with its detectable change."""
    return _document(f"lines regress {found.run.about['name']}", [_case(c) for c in found.comparisons])


def junit_error(place: str, cause: str) -> str:
    """Return a suite with the error that made the comparison impossible."""
    case = ET.Element("testcase", {"classname": "lines regress", "name": "comparable", "time": "0"})
    ET.SubElement(case, "error", {"message": _legal(cause.splitlines()[0]), "type": "error"}).text = _legal(cause)
    return _document(f"lines regress {place}", [case])


def _case(c: BaselineComparison) -> ET.Element:
    case = ET.Element("testcase", {"classname": _legal(c.arm), "name": _legal(task_label(c)), "time": "0"})
    numbers = _legal(comparison_numbers(c))
    if c.verdict == "regressed":
        ET.SubElement(case, "failure", {"message": numbers, "type": "regression"}).text = numbers
    elif c.verdict == "no evidence":
        ET.SubElement(case, "skipped", {"message": f"no evidence: {numbers}"})
    else:
        ET.SubElement(case, "system-out").text = f"{c.verdict}: {numbers}"
    return case


def _document(name: str, cases: Sequence[ET.Element]) -> str:
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    counts = {key: str(sum(case.find(kind) is not None for case in cases)) for key, kind in kinds.items()}
    about = {"name": _legal(name), "tests": str(len(cases)), **counts, "time": "0"}
    root = ET.Element("testsuites", about)
    ET.SubElement(root, "testsuite", about).extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
