"""Reads TTIR text: functions, operations, and the regions within them.

Only the forms that Triton prints are known; anything else raises, so that nothing is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_VALUE = re.compile(r"%[\w.$-]+(?:#\d+)?")
_RESULTS = re.compile(r"(%[\w.$-]+)(?::(\d+))? = ")
_NAME = re.compile(r'"?([a-z_]+(?:\.[a-z_0-9]+)+)"?')
_CARRIED = re.compile(r"(%[\w.$-]+) = (%[\w.$-]+(?:#\d+)?)")


@dataclass
class Region:
    """Operations in order, and the names that they know their arguments by."""

    arguments: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def walk(self) -> Iterator[Operation]:
        """All operations, those of inner regions too."""
        for operation in self.operations:
            yield operation
            for region in operation.regions:
                yield from region.walk()


@dataclass
class Operation:
    """One operation.

    Attributes:
        name: such as "arith.addf".
        results, operands: names of values. Of a loop, the operands are what it begins with (of
            scf.for after its bounds and step).
        text: what stands between name and type: a predicate, a constant, attributes.
        type: what stands after the last colon of the first line, or after the regions; of a loop,
            the types of what it carries.
        regions: of scf.while, the condition's and the body's.
    """

    name: str
    results: list[str]
    operands: list[str]
    text: str
    type: str
    regions: list[Region] = field(default_factory=list)


def parse(text: str, program: str) -> Region:
    """The body of the public function `program`, with its parameters as arguments."""
    lines = iter([line.strip() for line in text.splitlines() if line.strip()])
    for line in lines:
        if line.startswith("tt.func") and f"@{program}(" in line:
            signature = line.partition("(")[2].partition(" attributes ")[0]
            parameters = re.findall(r"(%[\w.$-]+): ", signature)
            region, closing = _region(lines)
            if closing != "}":
                raise ValueError(f"a function ends in {closing!r}")
            region.arguments = parameters
            return region
    raise ValueError(f"no function {program}")


def _region(lines: Iterator[str]) -> tuple[Region, str]:
    """A region up to the line that closes it, and that line."""
    region = Region()
    for line in lines:
        if line.startswith("}"):
            return region, line
        if line.startswith("^bb0("):
            region.arguments = re.findall(r"(%[\w.$-]+): ", line)
        elif line.startswith("^"):
            raise ValueError(f"more than one block: {line}")
        else:
            region.operations.append(_operation(line, lines))
    raise ValueError("the text ends within a region")


def _operation(line: str, lines: Iterator[str]) -> Operation:
    results: list[str] = []
    if found := _RESULTS.match(line):
        name, count = found.groups()
        results = [name] if count is None else [f"{name}#{i}" for i in range(int(count))]
        line = line[found.end() :]
    found = _NAME.match(line)
    if not found:
        raise ValueError(f"no operation: {line}")
    name, rest = found[1], line[found.end() :]
    if name in ("scf.for", "scf.while"):
        return _loop(name, results, rest, lines)
    if not rest.endswith("{"):
        text, _, kind = rest.rpartition(" : ") if " : " in rest else (rest, "", "")
        return Operation(name, results, _VALUE.findall(text), text, kind)
    # With regions: tt.reduce, tt.scan, scf.if.
    operation = Operation(name, results, _VALUE.findall(rest), rest, "")
    closing = "} else {"
    while closing in ("} else {", "}, {"):
        region, closing = _region(lines)
        operation.regions.append(region)
    operation.type = closing.rpartition(" : ")[2]
    return operation


def _loop(name: str, results: list[str], rest: str, lines: Iterator[str]) -> Operation:
    carried = _CARRIED.findall(rest)
    if name == "scf.while":
        condition, closing = _region(lines)
        if closing != "} do {":
            raise ValueError(f"a condition ends in {closing!r}")
        condition.arguments = [argument for argument, _ in carried]
        body, _ = _region(lines)
        begin = [value for _, value in carried]
        return Operation(name, results, begin, "", rest.partition(" : ")[2], [condition, body])
    counter, first, end, step = re.match(  # type: ignore[union-attr]
        r" (%\S+) = (%\S+) to (%\S+) step (%\S+)", rest
    ).groups()
    body, _ = _region(lines)
    carried = carried[1:]  # the first is the counter
    body.arguments = [counter] + [argument for argument, _ in carried]
    begin = [first, end, step] + [value for _, value in carried]
    return Operation(name, results, begin, "", rest.partition(" -> ")[2], [body])
