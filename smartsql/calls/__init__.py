"""What one statement asks and is told, on paper: cells, prompts, prices and answers; asks nobody.

`work` is a call before anything is asked, `recipes` say how the calls of each model are made,
`prompting` makes them, and the `book` holds what was answered, by whom and at what cost.
"""
