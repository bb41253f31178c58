"""Import paths of earlier versions, translated in the source of a plugin before it is executed.

A run keeps the text of its plugins, which may import a module by the path that it had in the
version that started the run. Only plugins are translated: nothing else in miras accepts an old
path. After moving a module that plugins import, add a line to the table.
"""

import ast

MODULES = {
    "miras.choices": "miras.config.choices",
    "miras.data.tokenizer": "miras.data.tokenizers.base",
    "miras.engine.checks": "miras.sequence.checks",
    "miras.engine.read": "miras.sequence.read",
    "miras.engine.scan": "miras.sequence.scan",
    "miras.files": "miras.runtime.files",
    "miras.formula": "miras.parts.formula",
    "miras.gate": "miras.parts.old_gate",
    "miras.models.mac": "miras.mixers.mac",
    "miras.models.titans": "miras.mixers.titans",
    "miras.norms": "miras.parts.norms",
    "miras.plugins": "miras.config.plugins",
    "miras.precision": "miras.rule.precision",
    "miras.registry": "miras.config.registry",
    "miras.sweep": "miras.config.sweep",
    "miras.tasks.base": "miras.data.task",
    "miras.train.metrics": "miras.train.loggers.jsonl",
    "miras.train.sinks": "miras.train.loggers.base",
    "miras.typing": "miras.array_typing",
}
"""New modules by old path."""

NAMES = {
    "miras.engine.State": "miras.State",
    "miras.engine.read": "miras.read",
    "miras.engine.scan": "miras.scan",
    "miras.train.optimizers.Muon": "miras.train.optimizers.MuonOptimizer",
    "miras.train.sinks.Opening": "miras.train.loggers.base.LoggerContext",
    "miras.train.sinks.Sink": "miras.train.loggers.base.Logger",
}
"""New names by old path, for names that a package of the same path no longer has."""


def translate(tree: ast.Module) -> ast.Module:
    """The tree of a plugin's source, with old paths replaced; positions are kept."""
    return ast.fix_missing_locations(_Translator().visit(tree))


class _Translator(ast.NodeTransformer):
    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            alias.name = MODULES.get(alias.name, alias.name)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | list[ast.ImportFrom]:
        if node.level or node.module is None or not node.module.startswith("miras"):
            return node
        return [_import(node, alias) for alias in node.names]

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        path = _dotted(node)
        new = NAMES.get(path) or MODULES.get(path)
        if new is None:
            return self.generic_visit(node)
        return ast.copy_location(ast.parse(new, mode="eval").body, node)


def _import(node: ast.ImportFrom, alias: ast.alias) -> ast.ImportFrom:
    """`from module import name`, each from where it is now."""
    assert node.module is not None
    old = f"{node.module}.{alias.name}"
    new = NAMES.get(old) or MODULES.get(old)
    if new is None:
        made = ast.ImportFrom(MODULES.get(node.module, node.module), [alias], 0)
    else:
        module, _, name = new.rpartition(".")
        made = ast.ImportFrom(module, [ast.alias(name, alias.asname or alias.name)], 0)
    return ast.copy_location(made, node)


def _dotted(node: ast.expr) -> str:
    """The path "a.b.c" of an attribute; empty where it is one of something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{inner}.{node.attr}" if (inner := _dotted(node.value)) else ""
    return ""
