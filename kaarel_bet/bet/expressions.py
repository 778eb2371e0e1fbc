"""The arithmetic of claims: `mean(P(capital | cells.test_told, conditional))` as a tree, never run as code.

An expression is parsed by Python's grammar against a whitelist: comparisons, + - * /, calls of known
functions, names and `|`. A *row* expression has a value for every row of a question; an aggregate makes
one number of it. Every value is an interval, exact where both ends are equal.
"""

import ast
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from backends.errors import SettingsError
from backends.schema import did_you_mean
from kaarel_bet.bet.observations import LOG_PROBABILITY, Question, Range, Vocabulary

Kind = Literal["number", "rows"]
Comparison = Literal[">", ">=", "<", "<="]

_LONGEST, _DEEPEST = 2_000, 60
"""Characters and levels of an expression; what goes beyond could exhaust Python's stack."""

PROBABILITIES = {"P": "logP", "logP": "logP", "P_first": "logP_first", "logP_first": "logP_first"}
"""Function -> the quantity that it reads; those without `log` take its exponential."""

AGGREGATES = {"mean": 1, "median": 1, "geometric_mean": 1, "share": 1, "least": 1, "greatest": 1,
              "gain": 2, "lead": 3, "agreement": 2, "kappa": 2}  # fmt: skip
"""What makes a number of row expressions, and of how many.

`share` is of a comparison. `gain(a, b)` is (a - b) / (1 - b) of the means; `lead(a, b, c)` is how far a is
ahead of the better of b and c, in the same unit: (a - max(b, c)) / (1 - c). `agreement(a, b)` is the share
of rows where two comparisons come out the same, or two grades are on the same side of the middle of what
they can be, and `kappa(a, b)` that beyond chance (Cohen 1960, Educ. Psychol. Meas. 20).
"""

_COMPARISONS: dict[type[ast.cmpop], Comparison] = {
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Lt: "<",
    ast.LtE: "<=",
}
_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class ExpressionError(SettingsError):
    """What is wrong with an expression, where it stands in the bet, and at which of its characters."""

    def __init__(self, message: str, key_path: tuple[str | int, ...] = (), column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.key_path = key_path
        self.column = column


@dataclass(frozen=True)
class Constant:
    """A number, written out or a parameter."""

    value: float
    kind: Kind = "number"


@dataclass(frozen=True)
class Observed:
    """A quantity of a question, as an arm answered it; `exponential` of a log-probability."""

    quantity: str
    candidate: str
    question: str
    arm: str
    exponential: bool
    range: Range
    table: str
    kind: Kind = "rows"


@dataclass(frozen=True)
class Operation:
    """+ - * / of two expressions, one of which is of rows if the whole is."""

    operator: str
    left: "Node"
    right: "Node"
    kind: Kind


@dataclass(frozen=True)
class Aggregate:
    """One number of row expressions (or of the comparison that `share` counts)."""

    function: str
    arguments: tuple["Node | Comparing", ...]
    kind: Kind = "number"


Node = Constant | Observed | Operation | Aggregate


@dataclass(frozen=True)
class Comparing:
    """Two expressions compared: what a criterion is, and what `share` counts the rows of."""

    comparison: Comparison
    left: Node
    right: Node
    text: str
    """The left side as written."""
    right_text: str


def parse_criterion(text: str, vocabulary: Vocabulary) -> Comparing:
    """A comparison of numbers.

    Raises:
        ExpressionError: it is none, or names something that does not exist.
    """
    found = _Parser(vocabulary).comparison(_tree(text))
    for side in (found.left, found.right):
        if side.kind == "rows":
            raise ExpressionError(
                f"'{found.text}' has a value for every row: write an aggregate around it "
                f"({', '.join(AGGREGATES)})"
            )
    return found


def parse_number(text: str, vocabulary: Vocabulary) -> Node:
    """An expression with one value. Raises ExpressionError."""
    node = _Parser(vocabulary).node(_tree(text))
    if node.kind == "rows":
        raise ExpressionError(
            f"'{text.strip()}' has a value for every row: write an aggregate around it"
        )
    return node


def replaced(text: str, names: dict[str, str]) -> str:
    """The expression with names, dotted ones among them, replaced by others. Raises ExpressionError."""
    for name in (*names, *names.values()):
        if not all(part.isidentifier() for part in name.split(".")):
            raise ExpressionError(f"'{_short(name)}' is no name that could be replaced or put in")

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.parse(names.get(node.id, node.id), mode="eval").body

        def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
            dotted = ast.unparse(node)
            return ast.parse(names.get(dotted, dotted), mode="eval").body

    return ast.unparse(Replace().visit(_tree(text)))


def _tree(text: str) -> ast.expr:
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        raise ExpressionError(
            f"an expression of {len(line):,} characters; {_LONGEST:,} are the most"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of Python's about its own literals
            tree = ast.parse(line, mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(
            f"'{_short(line)}' is no expression ({error.msg})", column=(error.offset or 1) - 1
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"'{_short(line)}' is no expression ({error})") from error
    level: list[ast.AST] = [tree]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ExpressionError(f"'{_short(line)}' is nested more than {_DEEPEST} levels deep")
    return tree


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


class _Parser:
    """Python's syntax tree as ours, every name looked up."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._known = vocabulary

    def comparison(self, tree: ast.expr) -> Comparing:
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1:
            _fail(tree, "must be one comparison, as in mean(...) > 0.5")
        sign = _COMPARISONS.get(type(tree.ops[0]))
        if sign is None:
            _fail(tree, "compares otherwise than by >, >=, < or <=")
        left, right = self.node(tree.left), self.node(tree.comparators[0])
        texts = (ast.unparse(tree.left), ast.unparse(tree.comparators[0]))
        return Comparing(sign, left, right, *texts)

    def node(self, tree: ast.expr) -> Node:
        match tree:
            case ast.Constant(value=int() | float()) if not isinstance(tree.value, bool):
                return Constant(_finite(tree))
            case ast.UnaryOp(op=ast.USub()):
                return self._operation(tree, "-", Constant(0.0), self.node(tree.operand))
            case ast.BinOp() if type(tree.op) in _OPERATORS:
                left, right = self.node(tree.left), self.node(tree.right)
                return self._operation(tree, _OPERATORS[type(tree.op)], left, right)
            case ast.Name():
                return self._parameter(tree)
            case ast.Call(func=ast.Name() | ast.Attribute(value=ast.Name()), keywords=[]):
                return self._call(tree, _dotted(tree.func))
        return _fail(tree, "is not allowed: numbers, parameters, + - * / and known functions are")

    def _operation(self, tree: ast.expr, sign: str, left: Node, right: Node) -> Operation:
        of_tables = {node.table for side in (left, right) for node in observed_in(side, deep=False)}
        if len(of_tables) > 1:
            _fail(
                tree,
                f"mixes rows that differ ({', '.join(sorted(of_tables))}): aggregate each first",
            )
        kind: Kind = "rows" if "rows" in (left.kind, right.kind) else "number"
        arms = {node.arm for side in (left, right) for node in observed_in(side, deep=False)}
        counts = {arm: self._known.trainings.get(arm, 1) for arm in sorted(arms)}
        if len({n for n in counts.values() if n > 1}) > 1:
            several = " and ".join(f"{n} of {arm}" for arm, n in counts.items() if n > 1)
            _fail(
                tree,
                f"pairs trainings row by row, of which there are {several}: aggregate each first",
            )
        if any(kind != side.kind and as_constant(side) is None for side in (left, right)):
            _fail(tree, "mixes a value for every row with an aggregate: aggregate both or neither")
        if sign == "/" and as_constant(right) == 0:
            _fail(tree, "divides by zero")
        return Operation(sign, left, right, kind)

    def _parameter(self, tree: ast.Name) -> Constant:
        if tree.id not in self._known.parameters:
            known = [*self._known.parameters, *AGGREGATES, *PROBABILITIES]
            _fail(tree, f"is no parameter; {did_you_mean(tree.id, known)}")
        return Constant(self._known.parameters[tree.id])

    def _call(self, tree: ast.Call, function: str) -> Node:
        if function in AGGREGATES:
            return self._aggregate(tree, function)
        if function in PROBABILITIES:
            return self._probability(tree, function)
        quantities = {name for q in self._known.questions.values() for name in q.quantities}
        if function in quantities - {"logP", "logP_first"}:
            return self._quantity(tree, function)
        known = [*AGGREGATES, *PROBABILITIES, *quantities]
        return _fail(
            tree, f"calls '{function}', which is no function; {did_you_mean(function, known)}"
        )

    def _aggregate(self, tree: ast.Call, function: str) -> Aggregate:
        wanted = AGGREGATES[function]
        if len(tree.args) != wanted:
            _fail(tree, f"has {len(tree.args)} arguments; {function} takes {wanted}")
        if function == "share":
            if not isinstance(tree.args[0], ast.Compare):
                _fail(tree, "must be of a comparison, as in share(P(...) > P(...))")
            comparing = self.comparison(tree.args[0])
            if "rows" not in (comparing.left.kind, comparing.right.kind):
                _fail(tree, "counts rows: neither side has a value for every row")
            self._operation(tree, "-", comparing.left, comparing.right)  # of the same rows
            return Aggregate(function, (comparing,))
        if function in ("agreement", "kappa"):
            pair = tuple(self._side(argument, function) for argument in tree.args)
            if len({(of.question, of.arm) for side in pair for of in observed_in(side)}) != 1:
                _fail(tree, "must be about the answers of one arm to one question")
            return Aggregate(function, pair)
        arguments = tuple(self.node(argument) for argument in tree.args)
        if any(argument.kind == "number" for argument in arguments):
            _fail(tree, f"has one number already where {function} wants a value for every row")
        return Aggregate(function, arguments)

    def _side(self, tree: ast.expr, function: str) -> Comparing:
        """A comparison, or a quantity compared with the middle of its range."""
        if isinstance(tree, ast.Compare):
            return self.comparison(tree)
        node, text = self.node(tree), ast.unparse(tree)
        if not isinstance(node, Observed) or not math.isfinite(sum(node.range)):
            _fail(tree, f"must be a comparison, or a grade, in {function}")
        middle = sum(node.range) / 2
        return Comparing(">", node, Constant(middle), text, f"{middle:g}")

    def _probability(self, tree: ast.Call, function: str) -> Observed:
        match tree.args:
            case [ast.BinOp(left=ast.Name(id=candidate), op=ast.BitOr(), right=asked), arm]:
                pass
            case _:
                _fail(tree, f"must be written {function}(CANDIDATE | QUESTION, ARM)")
        name, question = self._question(asked)
        if candidate not in question.candidates:
            hint = (
                did_you_mean(candidate, question.candidates)
                if question.candidates
                else "it has none"
            )
            _fail(tree, f"names '{candidate}', which is no candidate of {name}; {hint}")
        who = self._arm(arm, name, question)
        log = not function.startswith("P")
        span = LOG_PROBABILITY if log else (0.0, 1.0)
        return Observed(
            PROBABILITIES[function], candidate, name, who, not log, span, question.table or name
        )

    def _quantity(self, tree: ast.Call, quantity: str) -> Observed:
        if not 1 <= len(tree.args) <= 2:
            _fail(tree, f"must be written {quantity}(QUESTION, ARM)")
        name, question = self._question(tree.args[0])
        if quantity not in question.quantities:
            known = [q for q in question.quantities if not q.startswith("logP")]
            has = (
                f"has {', '.join(known)}"
                if known
                else "has probabilities alone: write P(... | ...)"
            )
            _fail(tree, f"asks for {quantity}, which is not observed in {name}: it {has}")
        if len(tree.args) == 1 and question.arms:
            _fail(tree, f"lacks the arm: write {quantity}({name}, ARM)")
        arm = self._arm(tree.args[1], name, question) if len(tree.args) == 2 else ""
        span = question.quantities[quantity]
        return Observed(quantity, "", name, arm, False, span, question.table or name)

    def _question(self, tree: ast.expr) -> tuple[str, Question]:
        name = _dotted(tree)
        if name not in self._known.questions:
            _fail(tree, f"is no question; {did_you_mean(name, self._known.questions)}")
        return name, self._known.questions[name]

    def _arm(self, tree: ast.expr, asked: str, question: Question) -> str:
        arm = _dotted(tree)
        if arm not in self._known.arms:
            _fail(tree, f"is no arm; {did_you_mean(arm, self._known.arms)}")
        if arm not in question.arms:
            _fail(
                tree,
                f"is not asked {asked}; asked are: {', '.join(sorted(question.arms)) or 'none'}",
            )
        return arm


def _dotted(tree: ast.expr) -> str:
    inner = tree
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    if not isinstance(inner, ast.Name):
        _fail(tree, "must be a name")
    return ast.unparse(tree)


def _finite(tree: ast.Constant) -> float:
    try:
        value = float(tree.value)  # pyright: ignore[reportArgumentType]
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        _fail(tree, "is too large a number")
    return value


def _fail(tree: ast.AST, what: str) -> NoReturn:
    text = ast.unparse(tree)
    raise ExpressionError(f"'{_short(text)}' {what}", column=getattr(tree, "col_offset", 0))


def observed_in(node: "Node | Comparing", *, deep: bool = True) -> Iterator[Observed]:
    """Everything observed that an expression is of; not `deep`, that outside of aggregates."""
    match node:
        case Observed():
            yield node
        case Operation() | Comparing():
            yield from observed_in(node.left, deep=deep)
            yield from observed_in(node.right, deep=deep)
        case Aggregate() if deep:
            for argument in node.arguments:
                yield from observed_in(argument, deep=deep)
        case _:
            return


def as_constant(node: Node) -> float | None:
    """The value of an expression that nothing is observed for, None of any other."""
    match node:
        case Constant():
            return node.value
        case Operation():
            left, right = as_constant(node.left), as_constant(node.right)
            return (
                None if left is None or right is None else _arithmetic(node.operator, left, right)
            )
        case _:
            return None


def _arithmetic(operator: str, left: float, right: float) -> float | None:
    operations: dict[str, Callable[[float, float], float]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b if b else math.nan,
    }
    return operations[operator](left, right)
