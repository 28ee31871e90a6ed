#!/usr/bin/env node
// Takes the place of Prisma's native `query-engine`, which is downloaded from a host that many networks block.
//
// prisma-client-py starts it as `query-engine -p PORT --enable-metrics --enable-raw-queries` and posts GraphQL to it.
// The same engine is on npm, as WebAssembly inside @prisma/client; it speaks Prisma's JSON protocol. This program
// stands between them. ROUNDHOUSE_NODE_PACKAGES names the folder with the npm packages, PRISMA_DML_PATH the schema.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'

import { fromClient, sameAccount } from './caller.mjs'
import { Engine } from './engine.mjs'
import { answer, Translator } from './protocol.mjs'
import { databaseUrl, readModels } from './schema.mjs'

const LOOPBACK = '127.0.0.1'
const PARENT_CHECK_MS = 1000
const METRICS = { counters: [], gauges: [], histograms: [] }

const require = createRequire(join(process.env.ROUNDHOUSE_NODE_PACKAGES ?? '.', 'package.json'))
const log = (text) => console.error(`database bridge: ${text}`)

function failure(error) {
  const message = error instanceof Error ? error.message : String(error)
  return { errors: [{ error: message, user_facing_error: { is_panic: false, message, meta: {}, error_code: 'P2009' } }] }
}

/** The routes of Prisma's query engine; null for those that it does not have. */
class Routes {
  constructor(engine, translator) {
    this.engine = engine
    this.translator = translator
  }

  async answer(method, path, text, transaction) {
    if (path === '/status') return { status: 'ok' }
    if (path.startsWith('/metrics')) return METRICS
    if (method !== 'POST') return null
    if (path === '/') return this.#query(JSON.parse(text), transaction)
    if (path === '/transaction/start') return this.engine.begin(text)
    const end = /^\/transaction\/([^/]+)\/(commit|rollback)$/.exec(path)
    return end ? this.engine.end(end[2], end[1]) : null
  }

  async #query(body, transaction) {
    if (!body.batch) {
      const response = await this.engine.query(this.translator.query(body.query), transaction)
      return response.errors ? { errors: response.errors } : answer(response)
    }
    const batch = body.batch.map(({ query }) => this.translator.query(query))
    const together = body.transaction ? {} : undefined
    const response = await this.engine.query({ batch, transaction: together }, transaction)
    if (response.errors) return { errors: response.errors }
    return { batchResult: response.batchResult.map((part) => (part.errors ? { errors: part.errors } : answer(part))) }
  }
}

function serve(port, routes) {
  const server = createServer((request, response) => {
    if (!fromClient(request.headers, port)) {
      response.writeHead(403).end()
      return
    }
    const chunks = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', async () => {
      const text = Buffer.concat(chunks).toString('utf8')
      let document
      try {
        document = await routes.answer(request.method, request.url, text, request.headers['x-transaction-id'])
      } catch (error) {
        log(`a request failed: ${error.message}`)
        document = failure(error)
      }
      response.writeHead(document ? 200 : 404, { 'content-type': 'application/json' })
      response.end(JSON.stringify(document ?? {}))
    })
  })
  server.on('connection', (socket) => {
    const client = { address: socket.remoteAddress, port: socket.remotePort }
    if (!client.address || !sameAccount(client, { address: LOOPBACK, port })) socket.destroy()
  })
  server.keepAliveTimeout = 0 // the client keeps its connections; never close one under it
  server.listen(port, LOOPBACK)
}

/** End with the gateway's worker, however that ends. */
function endWithParent() {
  const quit = () => process.exit(0)
  process.on('SIGINT', quit)
  process.on('SIGTERM', quit)
  const parent = Number(process.env.ROUNDHOUSE_PARENT ?? process.ppid)
  setInterval(() => process.ppid === parent || quit(), PARENT_CHECK_MS).unref()
}

async function main(argv) {
  if (argv.includes('--version')) {
    console.log(`query-engine wasm-${require('@prisma/client/package.json').version}`)
    return
  }
  const port = Number(argv[argv.indexOf('-p') + 1])
  endWithParent()
  const datamodel = readFileSync(process.env.PRISMA_DML_PATH, 'utf8')
  const engine = await Engine.connect(require, datamodel, databaseUrl(datamodel, process.env), log)
  serve(port, new Routes(engine, new Translator(readModels(datamodel), require('graphql'))))
}

main(process.argv.slice(2)).catch((error) => {
  log(`cannot start: ${error.message}`)
  process.exit(1)
})
