"""The page: one module per panel, its JavaScript and CSS in web/.

    page.py        the whole page, put together from
    write.py       prompt, sampling knobs, streamed text
    heads.py       attention of every layer and head
    training.py    loss curves and samples of a run
    card.py        what the model is
    models.py      the models to choose from; served.py is one of them
    web/           the browser's part: one .js per panel; base.js and lexer.js serve them all,
                   store.js holds what they share: one text, one cursor

What the model writes, what a person types and what a model directory claims about itself is
hostile input to the page: it travels as JSON and becomes text nodes, never markup.
"""
