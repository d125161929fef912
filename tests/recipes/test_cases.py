"""What a model is asked to do: prompts, changes, and prompts as people type them."""

from __future__ import annotations

from dataclasses import replace

from imagebart.worlds.avatars import PLAIN, VALUES
from recipes.avatars.cases import EDITED, changes, found, held_out_prompt, seen_prompt, typed_prompts
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out


def test_prompts_repeat_and_name_one_to_six_attributes() -> None:
    cases = [seen_prompt(i, 900_000) for i in range(60)]
    assert cases == [seen_prompt(i, 900_000) for i in range(60)]
    assert cases != [seen_prompt(i, 900_001) for i in range(60)]
    assert len({case.text for case in cases}) > 55
    assert all(case.claims for case in cases)


def test_every_held_out_pair_is_asked_for() -> None:
    for number, pair in enumerate(HELD_OUT_PAIRS):
        claims = held_out_prompt(number, 900_000).claims
        assert all(claims[name] == {value} for name, value in pair.items())


def test_only_what_shows_is_found() -> None:
    bald = replace(PLAIN, top="bald", hair_color="red")
    assert found(bald, {"hair_color": frozenset({"red"}), "top": frozenset({"bald", "buzz"})}) == {
        "hair_color": False,
        "top": True,
    }
    assert not found(PLAIN, {"mouth": frozenset({"sad"})})["mouth"]


def test_changes_ask_for_something_new_in_one_place() -> None:
    for number, attribute in enumerate(EDITED):
        change = next(changes(number, 900_000, 3))
        assert change.attribute == attribute and not held_out(change.before) and not held_out(change.after)
        assert all(found(change.after, change.prompt.claims).values())
        assert not all(found(change.before, change.prompt.claims).values())
        assert {EDITED[name] for name in change.prompt.claims} == {EDITED[attribute]}


def test_prompts_as_people_type_them_claim_values_that_there_are() -> None:
    prompts = typed_prompts()
    claims = {prompt.text: prompt.claims for prompt in prompts}
    assert len(claims) == len(prompts) >= 60
    for prompt in prompts:
        assert all(allowed <= set(VALUES[name]) for name, allowed in prompt.claims.items())
    assert claims["asleep"] == {"eyes": {"closed"}} and claims["Womon with long hiar"]["top"] == {"straight", "wavy"}
