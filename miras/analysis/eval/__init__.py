"""How well a trained model recalls and predicts: tasks by length and depth, and lm-eval's tasks.

`evaluate` asks a task of `miras.tasks` (`evaluate_task`), `answers` reads its rows in pieces,
`results` has the statistics, `report` and `plot` show them. `harness` evaluates a run on tasks of
EleutherAI's lm-eval; `harness_model` answers their requests by `continuations` and `completions`,
which read rows of any length with a `row_reader`. `perplexity` is that of a text. The command is
`miras eval`.
"""
