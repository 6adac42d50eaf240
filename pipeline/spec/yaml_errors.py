"""Errors of YAML in the words of this project: the line, the column, what is wrong and what to do."""

import re

import yaml

_UNCLOSED = "a quote that is not closed"
_EVEN = "indent the lines of one list or mapping equally"
#: PyYAML's description, a regular expression -> what is wrong, and what to do; "{}" is what its group found.
_WORDS = {
    r"mapping values are not allowed": f"a ':' where none can be: {_EVEN}, and put text that holds ': ' in quotes",
    r"sequence entries are not allowed": f"a '-' where no list can begin: {_EVEN}",
    r"mapping keys are not allowed": "a '?' where no key can begin: put text that begins with ? in quotes",
    r"found character '\\t'": "a tab: indent with spaces",
    r"found character (.+) that cannot start": "text that begins with {}: put it in quotes",
    r"could not find expected ':'": "the line is neither 'key: value' nor '- value': put ': ' after its key",
    r"expected <block end>, but found '(<block .+ start>|\?)'": f"the line is indented too far: {_EVEN}",
    r"expected <block end>, but found": f"a new line is missing here: {_EVEN}, and close quotes and brackets",
    r"expected ',' or '(.)', but got": "a comma or {} is missing here: close brackets, and put text that holds commas, "
    "brackets or ': ' in quotes",
    r"found unexpected end of stream|found unexpected document separator": _UNCLOSED,
    r"found unknown escape character (.+)": "{} after a backslash in double quotes: use single quotes",
    r"found undefined alias (.+)": "no anchor {} above: put text that begins with * in quotes",
    r"second occurrence": "an anchor with the name of another: give it a name of its own",
    r"but found another document": "a second document: a spec is one document, so remove the line ---",
    r"expected '<document start>'": f"text outside the mapping: {_EVEN}",
    r"expected the node content": "a value is missing here: put text that holds special characters in quotes",
    r"expected a mapping .*for merging": "<<: must be the alias of a mapping, as in <<: *name",
    r"unsupported tag (.+)": "the tag {}: a spec holds text, numbers, true, false, null, lists and mappings; put text "
    "that begins with ! in quotes",
    r"key that is a collection": "a list or mapping as key: a key is text; put it in quotes if it begins with [ or {{",
    r"key that is no text: (.+)": "the key {} is read as a number, as true, false or null: put it in quotes",
}


def explain(error: yaml.YAMLError) -> str:
    """Return an error as "line 3, column 5: not valid YAML: what is wrong, and what to do"."""
    problem = getattr(error, "problem", None) or str(error).split("\n")[0]
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}not valid YAML: {_in_our_words(problem)}"


def _in_our_words(problem: str) -> str:
    for pattern, words in _WORDS.items():
        if found := re.match(pattern, problem):
            return words.format(*found.groups())
    return problem
