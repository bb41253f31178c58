"""BABILong: the facts of a bAbI story hidden in text, and a question about them."""

import dataclasses
import functools

import numpy as np

from miras.config import require
from miras.data.task import Documents, Example, Material, Opened, Task, check_length, register
from miras.tasks.background import Question, row, sentences
from miras.tasks.stories import Story, read_stories


@register("babilong")
@dataclasses.dataclass(frozen=True)
class BABILong(Task):
    """Facts of bAbI between sentences of background, then bAbI's question.

    BABILong (2406.10149), section 2, without its instructions and examples, which are for models
    that follow them:

        (background) Mary moved to the bathroom. (background) John went to the hallway. (background)
        Question: Where is Mary?
        Answer: bathroom

    The targets are the tokens of the answer and the space before it. Facts keep their order.
    Depth None scatters them over the places between sentences, as BABILong does; with a depth all
    stand at the place nearest to it. A story that does not fit in a row is not used for it.

    Attributes:
        babi: folder of bAbI's text files (`qa1_single-supporting-fact_train.txt`, ...); those of
            `train` are trained on, those of `test` held out.
        qa: which of bAbI's tasks, in [1, 20]; 1, 2 and 3 need so many facts.

    Raises:
        ConfigError: for a value out of range.
    """

    babi: str = dataclasses.field(default="", metadata={"path": True})
    qa: int = 1

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(1 <= self.qa <= 20, f"task.qa={self.qa} must lie in [1, 20].")

    def open(self, material: Material) -> Opened:
        """Read the stories, and open the background text."""
        stories, content = read_stories(self.babi, self.qa, train=material.role == "train")
        documents = material.documents()
        encode = material.tokenizer.encode
        asked = [_question(story) for story in stories]
        sizes = np.array(
            [sum(len(encode(part)) for part in (*q.facts, q.text, q.answer)) for q in asked]
        )
        make = functools.partial(_example, material, documents, asked, sizes)
        fingerprint = f"{material.tokenizer.fingerprint} {content} {documents.fingerprint}"
        return Opened(make, fingerprint)


def _question(story: Story) -> Question:
    facts = tuple(f"{fact} " for fact in story.facts)
    text = f"\nQuestion: {story.question}\nAnswer:"
    return Question("", facts, text, f" {story.answer}")


def _example(
    material: Material,
    documents: Documents,
    asked: list[Question],
    sizes: np.ndarray,
    random: np.random.Generator,
    length: int,
    depth: float | None,
) -> Example:
    check_length(length, int(sizes.min()), "the shortest of the stories")
    question = asked[int(random.choice(np.flatnonzero(sizes <= length)))]
    background = sentences(documents, random)
    return row(question, background, material.tokenizer, random, length, depth)
