"""What a client may ask of an image beside the answer: how unusual it is, and what it looks like.

For whoever collects images that are worth a look, and watches whether they change. The servers work out
none of it unless a request says ``features: true``; ``docs/serving.md`` says what each is.
"""
