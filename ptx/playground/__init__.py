"""The page: one module per panel, its JavaScript and CSS in web/.

    page.py        the whole page, put together from
    write.py       a prompt and what comes of it: request.py is a text as it is asked for, live.py
                   as it grows, transcript.py how it travels, syntax.py whether it parses,
                   growth.py how the pictures of its heads grow
    reading.py     what is asked about one position of it; question.py checks it, told.py is the
                   answer as JSON, traces.py computes, openend.py weighs a prompt's end,
                   recordings.py keeps what is being written
    programs.py    the same for programs: named endpoints
    training.py    what a person does about training; jobs.py runs it in child processes, which
                   tethered.py ends with the page; library.py is what there is to learn from,
                   preparing.py what is to be prepared before
    runs.py        the runs and their states; history.py is what one has logged, and wrote
    card.py        what the model is
    models.py      the models to choose from; served.py is one of them, zero_gpu.py a borrowed card
    web.py         how a panel gets onto the page
    limits.py      how much of all this a visitor may have; answers.py what an answer can carry
    web/           the browser's part: one .js per panel; base.js and lexer.js serve them all,
                   store.js holds what they share: one text, one cursor; sampler.js is the sampler
                   once more, writing.js the texts and how one begins, goes on and branches

What the model writes, what a person types and what a model directory claims about itself is
hostile input to the page: it travels as JSON and becomes text nodes, never markup.
"""
