"""The document with which cryoSPARC 5 tells cryosparc-tools its endpoints, made from what cryosparc-tools declares of them.

cryosparc-tools learns every path from this document, and ships the functions that it expects, with parameters and answers,
in ``cryosparc/api.pyi``. The paths themselves are nowhere public, so they are made up here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cryosparc

STREAMS = {"Dataset": "application/x-cryosparc-dataset", "Stream": "application/octet-stream"}
_PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def document(names: Iterable[str]) -> dict[str, Any]:
    """Describe these endpoints, each named as in ``jobs.find_one``."""
    paths = {path_of(name): {"post": _operation(name)} for name in names}
    return {
        "openapi": "3.1.0",
        "info": {"title": "stand-in", "version": "5"},
        "paths": paths,
        "components": {"schemas": {}},
    }


def path_of(name: str) -> str:
    """Give the path of an endpoint; what is in braces comes from the call."""
    places = "".join(f"/{{{item.arg}}}" for item in _in_path(function_of(name)))
    return f"/{name.replace('.', '/')}{places}"


def places(name: str) -> list[str]:
    """Name what an endpoint has in its path."""
    return [item.arg for item in _in_path(function_of(name))]


@cache
def function_of(name: str) -> ast.FunctionDef:
    """Find what cryosparc-tools declares of an endpoint."""
    namespace, _, function = name.rpartition(".")
    wanted = f"{namespace.title()}API" if namespace else "APIClient"
    found = [
        item
        for node in _declarations().body
        if isinstance(node, ast.ClassDef) and node.name == wanted
        for item in node.body
        if isinstance(item, ast.FunctionDef) and item.name == function
    ]
    assert len(found) == 1, f"cryosparc-tools declares no {name}"
    return found[0]


@cache
def _declarations() -> ast.Module:
    return ast.parse((Path(cryosparc.__file__).parent / "api.pyi").read_text(encoding="utf-8"))


def _in_path(function: ast.FunctionDef) -> list[ast.arg]:
    return [item for item in function.args.posonlyargs if item.arg != "self"]


def _operation(name: str) -> dict[str, Any]:
    arguments = function_of(name).args
    parameters = [
        {"name": item.arg, "in": "path", "required": True, "schema": {}} for item in _in_path(function_of(name))
    ]
    asked = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    operation: dict[str, Any] = {"summary": name, "responses": {"200": _answer(function_of(name))}}
    if name == "login":
        operation["requestBody"] = {"content": {"application/x-www-form-urlencoded": {"schema": {}}}}
    else:
        parameters += [
            {"name": item.arg, "in": "query", "required": default is None, "schema": {}} for item, default in asked
        ]
    body = [item for item in arguments.args if item.arg != "self"]
    if body:
        kind = _name(body[0].annotation)
        media = STREAMS.get(kind, "application/json")
        operation["requestBody"] = {"content": {media: {"schema": {"title": body[0].arg}}}}
    return {**operation, "parameters": parameters}


def _answer(function: ast.FunctionDef) -> dict[str, Any]:
    kind = _name(function.returns)
    if kind == "None":
        return {}
    if kind in STREAMS:
        return {"content": {STREAMS[kind]: {"schema": {}}}}
    if kind in _PLAIN:
        return {"content": {"application/json": {"schema": {"type": _PLAIN[kind]}}}}
    if kind.isidentifier():
        return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind}"}}}}
    return {"content": {"application/json": {"schema": {}}}}


def _name(annotation: ast.expr | None) -> str:
    return "None" if annotation is None else ast.unparse(annotation)
