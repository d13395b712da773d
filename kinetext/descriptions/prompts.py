"""Everything that is said to a language model, word for word, under versioned ids.

A prompt whose wording changes gets a new id, so that two texts of one `prompt_id` were asked for in the same words.
From the papers: the questions of MoTED §3.1 and the prompt of Devaraj et al., appendix D, verbatim. MoTED puts two
question-answer exemplars before its questions and does not publish them. Ours: the first exemplar of each is an example
output of the paper (Figs. 1-2: slapping; slapping against clapping), the second is written for this project in the same
manner: concise and without objects of its own. Sent as one user message; no system message.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CHARACTERISTIC",
    "CONCEPTUAL",
    "DISCRIMINATIVE",
    "MASKING",
    "PROMPTS",
    "Messages",
    "Prompt",
    "asked_again",
    "messages_sha256",
]

Messages = tuple[dict[str, str], ...]  # of the chat API: {"role": "user", "content": "..."}

# What models put around an answer although nobody asked: the letter of the exemplars, the opening of Devaraj's prompt,
# quotation marks. It says nothing, so it is taken off instead of being paid for again.
_OPENING = re.compile(r"(?:A|Answer)\s*:\s*|(?:the )?characteristic motions? of [^:\n]*?\b(?:is|are)\s*:\s*", re.I)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"))


@dataclass(frozen=True)
class Prompt:
    """A prompt with places for names.

    Args:
        prompt_id: with the version at its end.
        question: with `{name}` and, where it tells two classes apart, `{contrast}`.
        exemplars: question-answer pairs that come first: the names put into `question`, and the answer.
    """

    prompt_id: str
    question: str
    exemplars: tuple[tuple[dict[str, str], str], ...] = ()

    def messages(self, **names: str) -> Messages:
        """What is sent: the exemplars and the question, a line between them, in one user message.

        Args:
            names: `name`, and `contrast` where the question has it: classes as they are called in a sentence.
        """
        answered = [f"{self.question.format(**asked).rstrip()} {answer}" for asked, answer in self.exemplars]
        return ({"role": "user", "content": "\n\n".join([*answered, self.question.format(**names)])},)

    @staticmethod
    def cleaned(answer: str) -> str:
        """The text in an answer: without "A:", "Characteristic motion of … is:", quotation marks and spaces around."""
        text = _OPENING.sub("", answer.strip(), count=1) if _OPENING.match(answer.strip()) else answer.strip()
        for left, right in _QUOTES:
            inside = text.removeprefix(left).removesuffix(right)
            if text == left + inside + right and left not in inside and right not in inside:
                text = inside.strip()
        return re.sub(r"[ \t\u00a0]+", " ", text)


# MoTED §3.1, two-shot. The paper's own spelling of the question, its final space included.
CONCEPTUAL = Prompt(
    "moted-conceptual-1",
    "Q: What is the motion concept in a video of {name}? A: ",
    (
        ({"name": "slapping"}, "a quick hand movement striking against something."),
        (
            {"name": "rocking"},
            "swaying the whole body back and forth at a slow, even pace while the feet stay in place.",
        ),
    ),
)
DISCRIMINATIVE = Prompt(
    "moted-discriminative-1",
    "Q: What are the useful features for distinguishing the original class {name} from the similar class {contrast}? "
    "A:",
    (
        (
            {"name": "slapping", "contrast": "clapping"},
            "Direction of motion; Hand position; Contact surface; Number of hands involved; Force applied",
        ),
        (
            {"name": "rocking", "contrast": "spinning"},
            "Back-and-forth path instead of full turns; Direction of facing stays the same; "
            "Slow, even rhythm with a pause at each end",
        ),
    ),
)
# Devaraj et al., appendix D; its three in-context examples are part of the sentence.
CHARACTERISTIC = Prompt(
    "devaraj-characteristic-1",
    "Characteristic motion of air drumming action is: doing rhythmic, exaggerated hand and arm movement. "
    "The characteristic motion of abseiling is: doing a controlled descent down a vertical drop. "
    "The characteristic motion of swing dancing is: doing energetic, bouncy movements with lots of spins, kicks, and "
    "lifts. Similarly, provide the characteristic motions of action {name}.",
)
PROMPTS = {"conceptual": CONCEPTUAL, "discriminative": DISCRIMINATIVE, "characteristic": CHARACTERISTIC}  # by kind

# Masking. Devaraj et al. masked by hand; this prompt is ours and says what their files show, evenly applied.
MASKING = Prompt(
    "kinetext-mask-1",
    "Rewrite a sentence about how people move so that it names no object. Objects are tools, instruments, clothes, "
    "vehicles, food, furniture, animals, sports equipment, materials, plants and parts of buildings. Replace each "
    "name, together with the adjectives that say what the object looks like, by 'object' or 'objects' with a fitting "
    "article: 'a small brush' becomes 'an object', 'the cue ball' becomes 'the object', 'brushes' becomes 'objects', "
    "'a brush or comb' becomes 'an object', \"the ball's path\" becomes \"the object's path\"; a second, different "
    "object is 'another object'. Body parts, people, ground, floor, air, water, directions and all words for motion "
    "stay. Every other word stays as it is, in its place. If the sentence names no object, repeat it unchanged. "
    "Answer with the sentence alone.\nSentence: {text}\nRewritten:",
)


# Asking again


def asked_again(messages: Messages, answer: str, reasons: Sequence[str]) -> Messages:
    """The same conversation with the answer that cannot be used and the reasons as a further turn."""
    complaint = (
        f"This answer cannot be used: {'; '.join(reasons)}. "
        "Answer the question again without this fault, with the description alone, on one line."
    )
    return (
        *messages,
        {"role": "assistant", "content": answer.strip() or "(no answer)"},  # endpoints refuse empty turns
        {"role": "user", "content": complaint},
    )


def messages_sha256(messages: Messages) -> str:
    """Hash, in hexadecimal, of the messages as they are sent: their JSON with sorted keys in UTF-8."""
    return hashlib.sha256(json.dumps(messages, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
