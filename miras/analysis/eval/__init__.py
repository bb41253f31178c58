"""What a trained model recalls, at lengths and depths of one's choice.

`evaluate` asks (`evaluate_task`), `reading` reads long rows in pieces, `results` has the
statistics, `report` and `plot` tell them, and `command` is `miras eval`.
"""
