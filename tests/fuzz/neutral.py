"""Random edits that change nothing that a function does: of spelling, of what nobody reads.

After one of these nothing may run again; of some (a helper renamed with all its callers) that is
left open, and only counted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from random import Random

from tests.fuzz.edits import Edit
from tests.fuzz.places import defined
from tests.fuzz.projects import Project
from tests.fuzz.wholes import bound_by, taken_whole

Neutral = Callable[[Random, str], str | None]


def comment(random: Random, text: str) -> str | None:
    lines = text.split("\n")
    at = random.randrange(len(lines))
    if '"""' in text:
        return None
    lines[at] += f"  # {random.randint(0, 999)}"
    return "\n".join(lines)


def comment_line(random: Random, text: str) -> str | None:
    lines = text.split("\n")
    lines.insert(random.randrange(len(lines)), f"# line {random.randint(0, 999)}")
    return "\n".join(lines)


def blank_lines(random: Random, text: str) -> str | None:
    lines = text.split("\n")
    at = random.randrange(len(lines))
    lines[at:at] = [""] * random.randint(1, 400)  # beyond the short form of a jump's line table
    return "\n".join(lines)


def reformatted(random: Random, text: str) -> str | None:
    return ast.unparse(ast.parse(text))


def requoted(random: Random, text: str) -> str | None:
    return re.sub(r'(?<!["\\\'b\w])"(\w+)"(?!")', r"'\1'", text)


def _function(text: str) -> tuple[ast.Module, list[ast.FunctionDef]]:
    tree = ast.parse(text)
    return tree, [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]


def docstring(random: Random, text: str) -> str | None:
    tree, functions = _function(text)
    if not functions:
        return None
    function = random.choice(functions)
    node = ast.Expr(ast.Constant(f"Say {random.randint(0, 999)}."))
    if ast.get_docstring(function) is not None:
        function.body[0] = node
    else:
        function.body.insert(0, node)
    return ast.unparse(ast.fix_missing_locations(tree))


def passing(random: Random, text: str) -> str | None:
    """A `pass` before something else; behind a last `if` it would move the end of a branch."""
    tree, functions = _function(text)
    if not functions:
        return None
    body = random.choice(functions).body
    first = int(isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant))
    body.insert(random.randint(first, max(first, len(body) - 1)), ast.Pass())
    return ast.unparse(ast.fix_missing_locations(tree))


def folded(random: Random, text: str) -> str | None:
    """A number in a body is written as a sum, which the compiler works out."""
    tree, functions = _function(text)
    nodes = [
        each
        for function in functions
        for statement in function.body
        if not isinstance(statement, ast.Match)
        for each in ast.walk(statement)
        if isinstance(each, ast.Constant) and type(each.value) is int and each.value > 1
    ]
    if not nodes or "case " in text:
        return None
    node = random.choice(nodes)
    shown = ast.unparse(node)
    mark = "__folded__"
    node.value = mark
    return ast.unparse(tree).replace(repr(mark), f"({int(shown) - 1} + 1)", 1)


def local_renamed(random: Random, text: str) -> str | None:
    tree, functions = _function(text)
    if len(functions) != 1 or "nonlocal" in text or "class " in text or "lambda" in text:
        return None
    (function,) = functions
    stored = {
        each.id
        for each in ast.walk(function)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    taken = {each.arg for each in ast.walk(function) if isinstance(each, ast.arg)}
    names = sorted(stored - taken)
    if not names or "match " in text or "except" in text:
        return None
    old, new = random.choice(names), f"local{random.randint(0, 999)}"
    for each in ast.walk(function):
        if isinstance(each, ast.Name) and each.id == old:
            each.id = new
    return ast.unparse(tree)


def annotation(random: Random, text: str) -> str | None:
    """Annotate arguments of a function, or spell an annotation in another way."""
    tree, functions = _function(text)
    plain = [each for each in functions if not each.decorator_list]  # a decorator may read them
    if not plain or "class " in text or "@step" in text or "singledispatch" in text:
        return None
    function = random.choice(plain)
    spelled = random.choice(("object", "'object'", "int | None", "'list[int] | None'"))
    for each in function.args.args:
        each.annotation = ast.parse(spelled, mode="eval").body
    function.returns = ast.parse(random.choice(("object", "'object'")), mode="eval").body
    return ast.unparse(ast.fix_missing_locations(tree))


STATEMENTS: tuple[Neutral, ...] = (
    comment,
    comment_line,
    blank_lines,
    reformatted,
    requoted,
    docstring,
    passing,
    folded,
    local_renamed,
    annotation,
)


# Of a module as a whole


def function_moved(random: Random, project: Project, module: str) -> list[str] | None:
    statements = list(project.modules[module])
    names = defined(project, module)
    plain = [
        at
        for at, each in enumerate(statements)
        if (found := re.match(r"def (f\d+)\(x\)", each)) and names.count(found[1]) == 1
    ]
    if not plain:
        return None
    moved = statements.pop(random.choice(plain))
    statements.insert(random.randint(2, len(statements)) if statements[2:] else 0, moved)
    return statements


def unrelated(random: Random, project: Project, module: str) -> list[str] | None:
    """Add a function, class, value or import that nothing reads."""
    statements = list(project.modules[module])
    number = random.randint(0, 99999)
    text = random.choice(
        (
            f"def unrelated{number}(x):\n    return {number}",
            f"UNRELATED{number} = [{number}]",
            f"class Unrelated{number}:\n    rate = {number}",
            "import json",
            "from collections.abc import Mapping as Unrelated",
        )
    )
    statements.insert(random.randint(1, len(statements)), text)
    return statements


_NAME_OF_UNRELATED = re.compile(r"\bunrelated\d+", re.IGNORECASE)


def unrelated_changed(random: Random, project: Project, module: str) -> list[str] | None:
    statements = list(project.modules[module])
    known = [
        at
        for at, each in enumerate(statements)
        if (name := _NAME_OF_UNRELATED.search(each.partition("\n")[0]))
        and len(re.findall(rf"\b{name[0]}\b", project.text())) == 1  # an edit may have called it
    ]
    if not known:
        return None
    at = random.choice(known)
    statements[at] = statements[at].replace("return ", "return 1 + ").replace("rate = ", "rate = 1")
    return statements


def imports_swapped(random: Random, project: Project, module: str) -> list[str] | None:
    statements = list(project.modules[module])
    heads = [
        at
        for at, each in enumerate(statements)
        if each.startswith(("import ", "from ")) and "*" not in each and "\n" not in each
    ]
    if len(heads) < 2:
        return None
    one, other = sorted(random.sample(heads, 2))
    if not commute(statements[one], statements[other], statements[one + 1 : other]):
        return None
    statements[one], statements[other] = statements[other], statements[one]
    return statements


def commute(one: str, other: str, between: list[str]) -> bool:
    """Whether two imports may change places: nobody sees a name of theirs while it differs."""
    if any("*" in each for each in between):  # it may bring the same names
        return False
    names, more = _bound(one), _bound(other)
    words = {word for each in between for word in re.findall(r"\w+", each)}
    return names.isdisjoint(more) and words.isdisjoint(names | more)


def _bound(statement: str) -> frozenset[str]:
    """The names that imports give a meaning."""
    nodes = ast.parse(statement).body
    imports = (each for each in nodes if isinstance(each, ast.Import | ast.ImportFrom))
    return frozenset(name for each in imports for name in bound_by(each))


_UNRELATED = (unrelated, unrelated_changed)
MODULES = (function_moved, imports_swapped, *_UNRELATED)


# Left open


def helper_renamed(random: Random, project: Project) -> Edit | None:
    """Rename a function wherever it is named."""
    names = {
        found
        for module in [*project.modules][1:]
        for found in re.findall(r"^def (f\d+)\(x\)", project.source(module), re.M)
    }
    if not names:
        return None
    old, new = random.choice(sorted(names)), f"f9{random.randint(1000, 9999)}"
    change = re.compile(rf"(?<![a-zA-Z0-9]){old}\b")
    modules = {
        name: tuple(change.sub(new, each) for each in statements)
        for name, statements in project.modules.items()
    }
    return Edit("helper renamed", old, Project(modules), None)


def leave(random: Random, project: Project) -> Edit | None:
    """Change the spelling of a project; `None` if that came to nothing."""
    chance = random.random()
    if chance < 0.05:
        return helper_renamed(random, project)
    module = random.choice([*project.modules][1:])
    if chance < 0.4:
        whole = random.choice(MODULES)
        statements = whole(random, project, module)
        if statements is None:
            return None
        kind, where, new = whole.__name__, module, tuple(statements)
        counts = whole in _UNRELATED and module in taken_whole(project)
    else:
        one = random.choice(STATEMENTS)
        before = project.modules[module]
        at = random.randrange(len(before))
        text = one(random, before[at])
        if text is None:
            return None
        kind, where = one.__name__, f"{module}[{at}]"
        new = (*before[:at], text, *before[at + 1 :])
        counts = False
    return Edit(kind.replace("_", " "), where, project.with_module(module, new), True, counts)
