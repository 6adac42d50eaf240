"""Options of the tasks of encoders."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SentenceOptions(BaseModel):
    """What is read of the rows, and the head that classifies them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    text: str = "text"
    """The column of the text."""
    pair: str | None = None
    """The column of a second text that is read after the first, for pairs of sentences."""
    label: str = "label"
    """The column of the label: the class by number from 0, or by name."""
    head: str | None = None
    """A folder, or hf:OWNER/REPO, of a fine-tuned classifier, whose head is used."""
    labels: list[int | str] | None = None
    """What the label's column holds for each class of `head`, in its order; by default the classifier's own names."""
    classes: list[str] | None = Field(None, min_length=2)
    """Without `head`: the names of the classes; by default the different labels of the rows, in alphabetical order."""
    templates: list[str] = ["{}"]
    """Without `head`: prompts with one {} for a class's name; the mean of their embeddings is the class's."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens that are read of a text, at most those of the model; by default all of them."""
    batch_size: int | None = Field(None, ge=1)
    """Texts a forward pass: 32 by default, 128 on a GPU."""

    @model_validator(mode="after")
    def _one_head(self) -> "SentenceOptions":
        if self.head is not None and (self.classes is not None or "templates" in self.model_fields_set):
            raise ValueError("head: has classes of its own; leave classes and templates out")
        if self.head is None and self.labels is not None:
            raise ValueError("labels: are of a head; without one, name the classes in classes")
        for name, values in (("classes", self.classes or ()), ("labels", self.labels or ())):
            if twice := next((value for i, value in enumerate(values) if value in values[:i]), None):
                raise ValueError(f"{name}: must differ, got {twice!r} twice")
        return self
