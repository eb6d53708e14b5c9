"""Training: from token files to a model, and how good it is.

run.py         the command line; settings.py is what a run is told, and each preset's recipe
loop.py        the loop. A step is made of
    batches.py      token ids, read ahead
    kernels.py      what the network runs on, chosen by timing; device.py and parallel.py: where
    optim.py        Muon, AdamW and the rates
    corrections.py  what is taught beside the batches at the end: grammar.py, repetition.py, on
                    files from beginnings.py
rundir.py      a run's directory; state.py is a checkpoint, from which it goes on exactly,
               signals.py what makes it pause, origin.py what it began with if not noise
progress.py    what a person sees of it; track.py is TensorBoard, samples.py what it writes
evaluate.py    what a model is worth: score.py in bits per byte, continuations.py in Python
               that parses, baselines.py what it has to beat, heldout.py the text for it
doctor.py      what this machine can do (machine.py), and how long a preset takes (estimate.py)
cooldown.py, history.py, release.py
               a run branched off, a run made small, a run made a model to share
"""
