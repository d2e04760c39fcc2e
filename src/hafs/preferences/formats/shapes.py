"""The shapes in which preferences come: of each, what a row says, and the rows that a group becomes.

A reader raises KeyError for a missing column and ValueError for a row that cannot be used. A writer raises ValueError
for a group that the shape cannot hold at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hafs.data import (
    Asked,
    ColumnsRow,
    answer_of,
    asked_in,
    asked_of,
    column_of,
    conversation_in,
    text_of,
    turns_of,
    value_of,
)
from hafs.preferences.pairs import (
    Label,
    Pair,
    assistant,
    calls_tools,
    checked_pair,
    messages,
    parse_group,
    parse_pair,
    to_pairs,
    weight_of,
)
from hafs.types import PreferenceGroup, call_in

Said = Sequence[Pair | Label | PreferenceGroup]


# ---- hafs' own groups, and TRL's rows


def read_group(row: ColumnsRow) -> Said:
    return [parse_group(row)]


def write_group(group: PreferenceGroup) -> list[dict[str, Any]]:
    return [group.to_dict()]


def read_pair(row: ColumnsRow) -> Said:
    return [parse_pair(row)]


def write_pair(group: PreferenceGroup) -> list[dict[str, Any]]:
    return to_pairs(group)


def write_chat(group: PreferenceGroup) -> list[dict[str, Any]]:
    return to_pairs(group, conversational=True)


def read_implicit(row: ColumnsRow) -> Said:
    """The prompt is what chosen and rejected begin with alike, as TRL's `extract_prompt` finds it."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        n = next(
            (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
            min(len(chosen), len(rejected)),
        )
        n -= n > 0 and chosen[n - 1] == " "
        return [checked_pair(asked_of(chosen[:n], row.get("system"), row.get("tools")), chosen[n:], rejected[n:], row)]
    a, b = turns_of(chosen, "chosen"), turns_of(rejected, "rejected")
    if a[:-1] != b[:-1]:
        raise ValueError("chosen and rejected differ before their last message")
    asked = asked_of(a[:-1], row.get("system"), row.get("tools"))
    return [checked_pair(asked, answer_of(a[-1:], "chosen", asked), answer_of(b[-1:], "rejected", asked), row)]


def write_implicit(group: PreferenceGroup) -> list[dict[str, Any]]:
    rows = to_pairs(group, conversational=True)
    for row in rows:
        before = row.pop("prompt")
        row["chosen"], row["rejected"] = [*before, *row["chosen"]], [*before, *row["rejected"]]
    return rows


_GOOD = {"true", "1", "good", "up", "thumbs_up", "thumbs up", "👍", "desirable", "chosen", "positive", "like"}
_BAD = {"false", "0", "-1", "bad", "down", "thumbs_down", "thumbs down", "👎", "undesirable", "rejected", "negative"}


def read_unpaired(row: ColumnsRow) -> Said:
    """A prompt, one answer and whether it is good; or a conversation whose last answer is."""
    value = value_of(row, "label")
    word = "true" if value is True else "false" if value is False else str(value).strip().lower().removesuffix(".0")
    if word not in _GOOD | _BAD:
        raise ValueError(f"the label is {value!r}, not true or false")
    if column_of(row, "completion") and (column_of(row, "prompt") or column_of(row, "messages") or "input" in row):
        asked = asked_in(row)
        text = answer_of(value_of(row, "completion"), "completion", asked)
    else:
        asked, text = _last_answer(row)
    return [Label(asked, text, word in _GOOD, weight_of(row.get("weight")), text_of(row.get("source"), "source"))]


def _last_answer(row: ColumnsRow) -> tuple[Asked, str]:
    """What is asked by a conversation that ends with an answer, and that answer."""
    turns, tools = conversation_in(row)
    if turns[-1]["role"] != "assistant":
        raise ValueError(f"the conversation ends with the {turns[-1]['role']}: it has no answer")
    asked = asked_of(turns[:-1], None, tools)
    return asked, answer_of(turns[-1:], "messages", asked)


def write_unpaired(group: PreferenceGroup) -> list[dict[str, Any]]:
    """Each candidate once: by its label, or good when it wins more weight than it loses."""
    balance = [0.0] * len(group.candidates)
    for e in group.edges:
        balance[e.winner] += e.weight
        balance[e.loser] -= e.weight
    for i, candidate in enumerate(group.candidates):
        if candidate.label is not None:
            balance[i] = 1.0 if candidate.label.good else -1.0
    rows = []
    for candidate, net in zip(group.candidates, balance, strict=True):
        if net:
            row: dict[str, Any] = {"prompt": messages(group), "completion": assistant(candidate.text), "label": net > 0}
            rows.append({**row, **({"tools": [dict(t) for t in group.tools]} if group.tools else {})})
    return rows


# ---- ranked lists (NeMo-RL)


def read_ranked(row: ColumnsRow) -> Said:
    """`{"context": messages, "completions": [{"rank": 0, "completion": messages}, …]}`, rank 0 is best."""
    asked = asked_of(row["context"], row.get("system"), row.get("tools"))
    ranked = []
    for one in row["completions"]:
        if (
            not isinstance(one, dict)
            or isinstance(one.get("rank"), bool)
            or not isinstance(one.get("rank"), int | float)
        ):
            raise ValueError("a completion has no number as its 'rank'")
        ranked.append((one["rank"], answer_of(one["completion"], "completion", asked)))
    pairs = [checked_pair(asked, a, b, row) for i, a in ranked for j, b in ranked if i < j]
    if not pairs:
        raise ValueError("all completions have one rank")
    return pairs


def write_ranked(group: PreferenceGroup) -> list[dict[str, Any]]:
    """Ranks are the longest way down from a candidate that nothing beats."""
    rank = [0] * len(group.candidates)
    for _ in range(len(rank) + 1):
        before = list(rank)
        for e in group.edges:
            rank[e.loser] = max(rank[e.loser], rank[e.winner] + 1)
        if rank == before:
            break
    else:
        raise ValueError("its edges run in a circle, which no ranking can say")
    order = sorted(range(len(rank)), key=lambda i: rank[i])
    completions = [{"rank": rank[i], "completion": assistant(group.candidates[i].text)} for i in order]
    return [{"context": messages(group), "completions": completions}]


# ---- OpenAI and Together


def read_openai(row: ColumnsRow) -> Said:
    """`{"input": {"messages", "tools"}, "preferred_output": messages, "non_preferred_output": messages}`."""
    asked = asked_of(row["input"]["messages"], None, row["input"].get("tools"))
    better, worse = (answer_of(row[name], name, asked) for name in ("preferred_output", "non_preferred_output"))
    return [checked_pair(asked, better, worse, row)]


def write_openai(group: PreferenceGroup) -> list[dict[str, Any]]:
    given: dict[str, Any] = {"messages": messages(group)}
    if group.tools:
        given["tools"] = [dict(t) for t in group.tools]
    return [
        {"input": given, "preferred_output": assistant(chosen), "non_preferred_output": assistant(rejected)}
        for chosen, rejected, _ in group.pairs()
    ]


# ---- ms-swift


def read_swift(row: ColumnsRow) -> Said:
    """`{"messages": …}` with the better answer last, and `rejected_response` (a text) or `rejected_messages`."""
    asked, better = _last_answer(row)
    return [checked_pair(asked, better, answer_of(value_of(row, "rejected"), "rejected", asked), row)]


def write_swift(group: PreferenceGroup) -> list[dict[str, Any]]:
    more = {"tools": [dict(t) for t in group.tools]} if group.tools else {}
    rows = []
    for chosen, rejected, _ in group.pairs():
        worse = {"rejected_messages": assistant(rejected)} if call_in(rejected) else {"rejected_response": rejected}
        rows.append({"messages": [*messages(group), *assistant(chosen)], **worse, **more})
    return rows


# ---- ShareGPT ranking (LLaMA-Factory)

TO = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}


def write_sharegpt(group: PreferenceGroup) -> list[dict[str, Any]]:
    said = [m for m in messages(group) if m["role"] != "system"]
    if any(m["role"] not in TO or set(m) != {"role", "content"} for m in said):
        raise ValueError("its earlier messages hold calls of tools, which ShareGPT writes in other ways")
    if calls_tools(group):
        raise ValueError("its answers hold calls of tools, which ShareGPT writes in other ways")
    conversations = [{"from": TO[m["role"]], "value": m["content"]} for m in said]
    more = {"system": group.system} if group.system else {}
    more |= {"tools": json.dumps([dict(t) for t in group.tools])} if group.tools else {}
    return [
        {
            "conversations": conversations,
            "chosen": {"from": "gpt", "value": chosen},
            "rejected": {"from": "gpt", "value": rejected},
            **more,
        }
        for chosen, rejected, _ in group.pairs()
    ]


# ---- UltraFeedback, binarised


def read_ultrafeedback(row: ColumnsRow) -> Said:
    """`{"prompt", "prompt_id", "chosen": messages, "rejected": messages, "score_chosen", "score_rejected"}`."""
    if isinstance(row["chosen"], str):
        return read_pair(row)
    row.get("prompt"), row.get("messages")  # copies of parts of chosen
    a, b = turns_of(row["chosen"], "chosen"), turns_of(row["rejected"], "rejected")
    if a[:-1] != b[:-1]:
        raise ValueError("chosen and rejected differ before their last message")
    asked = asked_of(a[:-1] or row["prompt"], row.get("system"))
    return [checked_pair(asked, answer_of(a[-1:], "chosen", asked), answer_of(b[-1:], "rejected", asked), row)]


def write_ultrafeedback(group: PreferenceGroup) -> list[dict[str, Any]]:
    before = messages(group)
    return [
        {
            "prompt": group.prompt,
            "prompt_id": group.prompt_id,
            "chosen": [*before, *assistant(chosen)],
            "rejected": [*before, *assistant(rejected)],
            "messages": [*before, *assistant(chosen)],
            "score_chosen": 1.0 if e.margin is None else e.margin,
            "score_rejected": 0.0,
        }
        for chosen, rejected, e in group.pairs()
    ]


# ---- HH-RLHF

SPEAKS = re.compile(r"\n\n(Human|Assistant): ?")


def read_hh(row: ColumnsRow) -> Said:
    """Two transcripts, "\\n\\nHuman: …\\n\\nAssistant: …", that are alike up to the last answer."""
    sides = []
    for name in ("chosen", "rejected"):
        parts = SPEAKS.split(row[name])
        if parts[0].strip() or len(parts) < 5 or parts[-2] != "Assistant":
            raise ValueError(f"the column {name!r} is no transcript that ends with the assistant")
        roles = {"Human": "user", "Assistant": "assistant"}
        pairs = zip(parts[1::2], parts[2::2], strict=True)
        sides.append([{"role": roles[who], "content": text.strip()} for who, text in pairs])
    a, b = sides
    if a[:-1] != b[:-1]:
        raise ValueError("chosen and rejected differ before their last answer")
    return [checked_pair(asked_of(a[:-1]), a[-1]["content"], b[-1]["content"], row)]


def write_hh(group: PreferenceGroup) -> list[dict[str, Any]]:
    said = [m for m in messages(group) if m["role"] != "system"]
    whole = [*(m["content"] for m in said), *(c.text for c in group.candidates)]
    if any(m["role"] not in ("user", "assistant") for m in said) or any(
        SPEAKS.search(f"\n\n{t.strip()}") or SPEAKS.search(t) for t in whole
    ):
        raise ValueError("a text of it holds a speaker's mark, or a message is of a tool")
    if calls_tools(group):
        raise ValueError("its answers hold calls of tools, for which a transcript has no place")
    names = {"user": "Human", "assistant": "Assistant"}
    before = "".join(f"\n\n{names[m['role']]}: {m['content'].strip()}" for m in said)
    return [
        {name: f"{before}\n\nAssistant: {text.strip()}" for name, text in (("chosen", chosen), ("rejected", rejected))}
        for chosen, rejected, _ in group.pairs()
    ]


# ---- exports of annotation tools


def read_argilla(row: ColumnsRow) -> Said:
    """A record of Argilla 2: `{"fields": {"prompt", …}, "responses": {question: [{"value", "user_id"}]}}`.

    A ranking names fields, best first (or as `{"value", "rank"}`); a label names the better of two fields.
    """
    if "fields" not in row:
        raise ValueError("the record is flattened, which hides its fields: export it with `records.to_json(FILE)`")
    fields, responses = row["fields"], row["responses"]
    names = [n for n in ("prompt", "instruction", "question", "chat") if n in fields]
    if not names:
        raise KeyError("fields.prompt")
    asked = asked_of(fields[names[0]], fields.get("system"))
    texts = {n: answer_of(t, n, asked) for n, t in fields.items() if n not in (names[0], "system")}
    found: list[Pair] = []
    for answers in responses.values():
        for one in answers or ():
            if one.get("status", "submitted") != "submitted":
                continue
            by = f"human:{one['user_id']}" if one.get("user_id") else "human"
            found += [checked_pair(asked, texts[a], texts[b], {"source": by}) for a, b in _ordered(one["value"], texts)]
    if not found:
        raise ValueError("the record has no submitted answer that compares two fields")
    return found


def _ordered(value: Any, texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """(better, worse) names of a ranking or of a choice between two."""
    if isinstance(value, str) and value in texts and len(texts) == 2:
        return [(value, next(n for n in texts if n != value))]
    if not isinstance(value, list):
        return []
    ranked = [(v["rank"], v["value"]) if isinstance(v, dict) else (i, v) for i, v in enumerate(value)]
    if any(name not in texts for _, name in ranked):
        raise ValueError("a ranking names a field that the record does not have")
    return [(a, b) for i, a in ranked for j, b in ranked if i < j]


def write_argilla(group: PreferenceGroup) -> list[dict[str, Any]]:
    rows = []
    for chosen, rejected, e in group.pairs():
        kind, _, who = e.source.partition(":")
        answer = {"value": ["response1", "response2"], "status": "submitted", "user_id": who if kind == "human" else ""}
        fields: dict[str, Any] = {"prompt": group.prompt, "response1": chosen, "response2": rejected}
        if group.context:
            fields["prompt"] = messages(group)
        elif group.system:
            fields["system"] = group.system
        rows.append({"fields": fields, "responses": {"preference": [answer]}, "status": "completed"})
    return rows


def read_labelstudio(row: ColumnsRow) -> Said:
    """A task of Label Studio's JSON export with "pairwise" or "ranker" results on `data`'s answers."""
    data = row["data"]
    asked = asked_of(data["prompt"], data.get("system"))
    texts = {n: t for n, t in data.items() if n not in ("prompt", "system") and isinstance(t, str)}
    for items in (v for v in data.values() if isinstance(v, list) and v and isinstance(v[0], dict) and "id" in v[0]):
        texts |= {str(i["id"]): str(i.get("body", i.get("text", i.get("html", "")))) for i in items}
    found: list[Pair] = []
    for annotation in row["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by", "")
        by = f"human:{who.get('email') or who.get('id') if isinstance(who, dict) else who}".removesuffix(":")
        for result in annotation["result"]:
            for a, b in _compared(result, list(texts)):
                if a not in texts or b not in texts:
                    raise ValueError("a result names an answer that the task does not have")
                found.append(checked_pair(asked, texts[a], texts[b], {"source": by}))
    if not found:
        raise ValueError("the task has no result that compares two answers")
    return found


def _compared(result: ColumnsRow, names: list[str]) -> list[tuple[str, str]]:
    value = result.get("value", {})
    if result.get("type") == "pairwise" and value.get("selected") in ("left", "right"):
        to = str(result.get("to_name", "")).split(",")
        left, right = to if len(to) == 2 else _only_two(names)
        return [(left, right)] if value["selected"] == "left" else [(right, left)]
    if result.get("type") == "ranker":
        orders = [order for order in value.get("ranker", {}).values() if isinstance(order, list)]
        return [(str(a), str(b)) for order in orders for i, a in enumerate(order) for b in order[i + 1 :]]
    return []


def _only_two(names: list[str]) -> list[str]:
    if len(names) != 2:
        raise ValueError(f"the result has no 'to_name' that says which two of {len(names)} texts it compares")
    return names


def write_labelstudio(group: PreferenceGroup) -> list[dict[str, Any]]:
    rows = []
    for chosen, rejected, e in group.pairs():
        data: dict[str, Any] = {
            "prompt": messages(group) if group.context else group.prompt,
            "answer1": chosen,
            "answer2": rejected,
        }
        if group.system and not group.context:
            data["system"] = group.system
        kind, _, who = e.source.partition(":")
        result = {
            "type": "pairwise",
            "from_name": "preference",
            "to_name": "answer1,answer2",
            "value": {"selected": "left"},
        }
        rows.append(
            {"data": data, "annotations": [{"completed_by": who if kind == "human" else "", "result": [result]}]}
        )
    return rows


def asked_about(group: PreferenceGroup) -> Asked:
    """What a group is about."""
    context, tools = (json.dumps([dict(m) for m in rows], sort_keys=True) for rows in (group.context, group.tools))
    return Asked(group.system, context, group.prompt, tools)
