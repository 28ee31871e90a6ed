"""LiteLLM's database: its address, its migrations, and the bridge to Prisma's engine (the .mjs files).

`bridge.mjs` takes the place of Prisma's native engine, `migrations.py` that of `prisma migrate deploy`.
"""
