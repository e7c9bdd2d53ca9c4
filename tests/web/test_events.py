"""What a list of the page shows when its tab is opened again."""

from __future__ import annotations

from finetuning.web.events import chosen_of


def test_the_newest_is_shown_unless_a_person_chose_another() -> None:
    shown, unasked = chosen_of(["first"], None, None)
    assert shown == "first"
    assert chosen_of(["first", "second"], shown, unasked)[0] == "second"  # it came while another tab was open
    shown, unasked = chosen_of(["first", "second"], "first", "second")  # as a person chose
    assert chosen_of(["first", "second", "third"], shown, unasked)[0] == "first"
    assert chosen_of(["third"], shown, unasked)[0] == "third" and chosen_of([], shown, unasked) == (None, None)
