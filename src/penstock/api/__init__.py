"""HTTP: parse, call the engine, answer. Errors become problem documents here, and nothing below knows of HTTP.

`front` is the ASGI application: it checks who asks, answers the hot routes itself (`sending`, `calling`, `showing`) and
hands everything else to FastAPI (`routes`). `views` alone says what things look like, and no secret passes it.
"""
