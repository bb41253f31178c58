"""What a run needs and how long its steps take on chips that this machine need not have.

`miras plan` prints it. The analytic model is in `flops`, `memory`, `traffic`, `kernels` and
`predict`; `compiled` reads the same from the step that the TPU's compiler makes.
"""
