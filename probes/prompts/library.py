"""All prompt sets at hand: those that come with the app, and those imported into a store."""

from __future__ import annotations

import json

import pandas as pd

from cache.store import Store
from probes.errors import BadRequest
from probes.prompts.sets import Prompt, PromptSet, built_in

__all__ = ["all_sets", "find_set", "import_set", "remove_set"]


def all_sets(store: Store) -> tuple[PromptSet, ...]:
    """The built-in sets, then the imported ones, oldest first."""
    rows = store.prompt_sets()
    imported = (_stored(store, row.set_id, row.name, row.source) for row in rows.itertuples(index=False))
    return *built_in(), *imported


def find_set(store: Store, name: str) -> PromptSet:
    """The set of a name. Raises BadRequest naming those there are."""
    sets = {one.name: one for one in all_sets(store)}
    if name not in sets:
        raise BadRequest(f"There is no prompt set {name[:80]!r}; there are {', '.join(sets)}.")
    return sets[name]


def import_set(store: Store, prompts: PromptSet) -> None:
    """Keep a set in the store, all of it or nothing. Importing the same again changes nothing.

    Raises BadRequest if its name stands for other prompts.
    """
    taken = {one.name: one for one in built_in()}.get(prompts.name)
    if taken is not None:
        raise BadRequest(f"{prompts.name} is the name of a built-in set: choose another.")
    columns = {"id": "prompt_id", "group": "grp", "text": "text", "answer": "answer", "response": "response"}
    frame = pd.DataFrame(
        {column: [getattr(prompt, key) for prompt in prompts.prompts] for key, column in columns.items()}
    )
    rows = [prompt.as_row().get("messages") for prompt in prompts.prompts]
    frame["messages"] = [None if row is None else json.dumps(row, ensure_ascii=False) for row in rows]
    try:
        store.put_prompt_set(prompts.set_id, prompts.name, prompts.source, frame)
    except ValueError as problem:
        raise BadRequest(str(problem)) from None


def remove_set(store: Store, name: str) -> None:
    """Take an imported set out of the store; runs of its prompts stay. Raises BadRequest for one that cannot go."""
    found = find_set(store, name)
    if found in built_in():
        raise BadRequest(f"{name} is built in and cannot be removed.")
    store.drop_prompt_set(found.set_id)


def _stored(store: Store, set_id: str, name: str, source: str) -> PromptSet:
    prompts = []
    for row in store.prompts(set_id).to_dict("records"):
        messages = None if row["messages"] is None else tuple(json.loads(row["messages"]))
        prompts.append(Prompt(row["prompt_id"], row["text"], messages, row["grp"], row["answer"], row["response"]))
    return PromptSet(name, source, tuple(prompts))
