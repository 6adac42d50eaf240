"""The pages of the interface in Python, which mkdocstrings fills from docstrings."""

INTERFACE = {
    "reference/api/lines_sweep.md": """# lines_sweep

What notebooks and scripts call; [Python](../python.md) shows how.

::: lines_sweep.run
::: lines_sweep.open_run
::: lines_sweep.Run
::: lines_sweep.merge
::: lines_sweep.edit
::: lines_sweep.merging.Model
::: lines_sweep.running.Spec
""",
    "reference/api/tasks.md": """# Tasks and backbones

What a plug-in of your own uses or implements; [adding a task](../../guides/adding-a-task.md) shows how.

::: tasks.vision.zero_shot
::: tasks.vision.ImageSource
::: tasks.vision.ImageRecord
::: tasks.vision.content_hash
::: tasks.base.Task
::: tasks.base.Scored
::: tasks.base.Sized
::: tasks.base.TaskRequest
::: tasks.base.ShardResult
::: tasks.stats.Stats
::: tasks.base.Backbone
::: tasks.base.LayerMap
::: tasks.base.KeepsOutputs
::: tasks.base.KeepsStart
::: tasks.registry.Registry
""",
}
