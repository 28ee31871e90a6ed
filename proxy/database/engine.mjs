// Prisma's query engine (Rust, compiled to WebAssembly), connected to PostgreSQL through Prisma's adapter for `pg`.

// The adapter refuses a few types of the catalogue, which the native engine reads as text, and LiteLLM asks for them.
const READ_AS_TEXT = { 18: 25, 19: 25, 1002: 1009, 1003: 1009 } // "char", name, "char"[], name[]

// SQLSTATEs of a server that cannot serve now, whatever it is asked: the connection is gone, it shuts down or starts, it
// has no memory or no room on the disk, it cannot read or write.
const AWAY = /^(08|57P|53[12]|58)/

// The words of the native engine. By them LiteLLM knows that trying again helps, and that no row is at fault.
const UNREACHABLE = "Can't reach database server"

const DEFAULTS = { connection_limit: 10, pool_timeout: 10, connect_timeout: 5, max_idle_connection_lifetime: 300 }

/** The options that Prisma takes from the address's query, as settings of `pg`'s pool. */
export function poolConfig(raw) {
  const url = new URL(raw)
  const take = (name) => {
    const value = url.searchParams.get(name)
    url.searchParams.delete(name)
    return value
  }
  const number = (name) => Number(take(name) ?? DEFAULTS[name] ?? 0)
  const schema = take('schema') ?? undefined
  const [wait, connect, socket] = [number('pool_timeout'), number('connect_timeout'), number('socket_timeout')]
  const lifetime = number('max_connection_lifetime')
  for (const name of ['pgbouncer', 'statement_cache_size']) take(name)
  const [accept, sslmode] = [take('sslaccept'), take('sslmode')]
  if (accept === 'accept_invalid_certs') url.searchParams.set('sslmode', 'no-verify')
  else if (sslmode && !['allow', 'prefer'].includes(sslmode)) {
    url.searchParams.set('sslmode', sslmode)
    url.searchParams.set('uselibpqcompat', 'true') // `require` checks no certificate, there as everywhere else
  }
  const config = {
    max: number('connection_limit') || DEFAULTS.connection_limit,
    connectionTimeoutMillis: Math.max(wait, connect) * 1000,
    idleTimeoutMillis: number('max_idle_connection_lifetime') * 1000,
    ...(lifetime ? { maxLifetimeSeconds: lifetime } : {}),
    ...(schema ? { options: `-c search_path="${schema}"` } : {}),
    ...(socket ? { query_timeout: socket * 1000 } : {}),
  }
  return { schema, config: { ...config, connectionString: url.toString() } }
}

function tolerant({ Client }) {
  return class extends Client {
    constructor(config) {
      super(config)
      this.connection.on('rowDescription', ({ fields }) => {
        for (const field of fields) field.dataTypeID = READ_AS_TEXT[field.dataTypeID] ?? field.dataTypeID
      })
      this.connection.on('errorMessage', (error) => {
        if (!AWAY.test(error.code)) return
        error.message = `${UNREACHABLE}: ${error.message}`
        error.severity = undefined // no error of a statement then, to the adapter, which passes it on as it is
      })
    }
  }
}

function load(require) {
  const runtime = require('@prisma/client/runtime/query_engine_bg.postgresql.js')
  const { wasm } = require('@prisma/client/runtime/query_engine_bg.postgresql.wasm-base64.js')
  const module = new WebAssembly.Module(Buffer.from(wasm, 'base64'))
  const instance = new WebAssembly.Instance(module, { './query_engine_bg.js': runtime })
  runtime.__wbg_set_wasm(instance.exports)
  instance.exports.__wbindgen_start()
  return runtime.QueryEngine
}

/** The engine for a data model and a database; `require` finds the npm packages, `log` takes lines of text. */
export class Engine {
  #engine
  #adapter
  #requests = 0

  /** Load the engine and connect. Throws if it cannot. */
  static async connect(require, datamodel, url, log) {
    const it = new Engine()
    const { PrismaPg } = require('@prisma/adapter-pg')
    const { bindAdapter } = require('@prisma/driver-adapter-utils')
    const { config, schema } = poolConfig(url)
    config.Client = tolerant(require('pg'))
    const onPoolError = (error) => log(`a connection was lost: ${error.message}`)
    it.#adapter = bindAdapter(await new PrismaPg(config, { schema, onPoolError }).connect())
    const options = {
      datamodel,
      env: {}, // the address is the adapter's business
      logQueries: false,
      ignoreEnvVarErrors: true,
      datasourceOverrides: {},
      logLevel: 'error',
      configDir: '.',
      engineProtocol: 'json',
      enableTracing: false,
    }
    const QueryEngine = load(require)
    it.#engine = new QueryEngine(options, (line) => it.#logged(line, log), it.#adapter)
    await it.#engine.connect('{}', it.#id())
    return it
  }

  /** Run one query, or a batch, of the JSON protocol. */
  async query(body, transaction) {
    const response = JSON.parse(await this.#engine.query(JSON.stringify(body), '{}', transaction, this.#id()))
    for (const part of [response, ...(response.batchResult ?? [])]) if (part.errors) this.#name(part.errors)
    return response
  }

  /** Begin a transaction; `options` is JSON text of the client. */
  async begin(options) {
    return this.#ended(await this.#engine.startTransaction(options, '{}', this.#id()))
  }

  /** Commit or roll back the transaction `id`. */
  async end(how, id) {
    const end = how === 'commit' ? 'commitTransaction' : 'rollbackTransaction'
    return this.#ended(await this.#engine[end](id, '{}', this.#id()))
  }

  #id() {
    return String(++this.#requests)
  }

  #logged(line, log) {
    const entry = JSON.parse(line)
    if (entry.level === 'ERROR') log(entry.message ?? line)
  }

  // About a transaction the engine answers with one bare error, which has a message and may have a code.
  #ended(text) {
    const response = JSON.parse(text)
    return response.error_code || response.message
      ? { errors: this.#name([{ error: response.message, user_facing_error: response }]) }
      : response
  }

  // What is no error of a statement carries a number only; the error itself stays in the adapter's registry.
  #name(errors) {
    for (const error of errors) {
      const facing = error.user_facing_error ?? error
      if (facing.error_code !== 'P2036') continue
      const found = this.#adapter.errorRegistry.consumeError(facing.meta?.id)
      const text = String(found?.error?.message ?? found?.error ?? facing.message)
      if (text.startsWith(UNREACHABLE)) set(error, 'P1001', text)
      else if (/timeout/i.test(text)) set(error, 'P2024', `Timed out fetching a connection: ${text}`)
      else set(error, 'P1001', `${UNREACHABLE}: ${text}`)
    }
    return errors
  }
}

function set(error, code, message) {
  error.error = message
  error.user_facing_error = { is_panic: false, message, meta: {}, error_code: code }
}
