"""BABILong: the facts of a bAbI story hidden in text, followed by a question about them."""

import dataclasses
import functools

import numpy as np

from miras.config import require
from miras.data.task import Documents, Example, Material, Opened, Task, check_length, register
from miras.tasks.background import Question, make_row, sentences
from miras.tasks.stories import Story, read_stories


@register("babilong")
@dataclasses.dataclass(frozen=True)
class BABILong(Task):
    """The facts of a bAbI story between sentences of background text, then its question.

    BABILong (2406.10149), section 2, without its instructions and examples for chat models:

        (background) Mary moved to the bathroom. (background) John went to the hallway. (background)
        Question: Where is Mary?
        Answer: bathroom

    The targets are the tokens of the answer and the space before it. Facts keep their order. Depth
    None scatters them between random sentences, as BABILong does; with a depth, all of them are
    between the two sentences nearest to it. Stories that do not fit in a row are not used.

    Attributes:
        babi: folder of the text files of bAbI (`qa1_single-supporting-fact_train.txt`, ...); the
            `train` files are for training, the `test` files are held out.
        qa: number of the bAbI task, in [1, 20]; tasks 1, 2 and 3 need as many facts.

    Raises:
        ConfigError: a value is out of range.
    """

    babi: str = dataclasses.field(default="", metadata={"path": True})
    qa: int = 1

    def validate(self) -> None:
        """Check the ranges above."""
        super().validate()
        require(1 <= self.qa <= 20, f"task.qa={self.qa} must lie in [1, 20].")

    def open(self, material: Material) -> Opened:
        """Read the stories and open the background text."""
        stories, content = read_stories(self.babi, self.qa, train=material.role == "train")
        documents = material.documents()
        encode = material.tokenizer.encode
        questions = [_question(story) for story in stories]
        sizes = np.array(
            [sum(len(encode(part)) for part in (*q.facts, q.text, q.answer)) for q in questions]
        )
        make = functools.partial(_example, material, documents, questions, sizes)
        fingerprint = f"{material.tokenizer.fingerprint} {content} {documents.fingerprint}"
        return Opened(make, fingerprint)


def _question(story: Story) -> Question:
    facts = tuple(f"{fact} " for fact in story.facts)
    text = f"\nQuestion: {story.question}\nAnswer:"
    return Question("", facts, text, f" {story.answer}")


def _example(
    material: Material,
    documents: Documents,
    questions: list[Question],
    sizes: np.ndarray,
    random: np.random.Generator,
    length: int,
    depth: float | None,
) -> Example:
    check_length(length, int(sizes.min()), "the shortest of the stories")
    question = questions[int(random.choice(np.flatnonzero(sizes <= length)))]
    background = sentences(documents, random)
    return make_row(question, background, material.tokenizer, random, length, depth)
