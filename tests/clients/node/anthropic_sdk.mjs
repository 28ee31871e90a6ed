// Anthropic's SDK: its base URL has no /v1.
import Anthropic from '@anthropic-ai/sdk'
import { LONG, TOOL_ANSWER, assert, png, refused, run, said } from './cases.mjs'

const baseURL = process.env.OPENAI_BASE_URL.replace(/\/v1$/, '')
const client = new Anthropic({ baseURL, apiKey: process.env.OPENAI_API_KEY })
const messages = [{ role: 'user', content: 'Which files are there?' }]
const input_schema = { type: 'object', properties: {}, additionalProperties: false }
const tool = { name: 'list_files', description: 'The files.', strict: true, input_schema }

await run('@anthropic-ai/sdk', {
  async chat() {
    const answer = await client.messages.create({ model: 'reasoning', messages, max_tokens: 8 })
    said(answer.content[0]?.text)
  },
  async stream() {
    let texts = 0
    const stream = client.messages.stream({ model: 'reasoning', messages, max_tokens: 40 })
    stream.on('text', () => (texts += 1))
    const last = await stream.finalMessage()
    said(texts > 1)
    assert(['end_turn', 'max_tokens'].includes(last.stop_reason))
  },
  async tools() {
    const ask = { model: 'reasoning', tools: [tool] }
    const tool_choice = { type: 'tool', name: 'list_files' }
    const first = await client.messages.create({ ...ask, messages, tool_choice, max_tokens: LONG })
    const call = first.content.find((it) => it.type === 'tool_use')
    const result = { type: 'tool_result', tool_use_id: call.id, content: TOOL_ANSWER }
    const turns = [{ role: 'assistant', content: first.content }, { role: 'user', content: [result] }]
    const last = await client.messages.create({ ...ask, messages: [...messages, ...turns], max_tokens: 8 })
    assert(['end_turn', 'max_tokens', 'tool_use'].includes(last.stop_reason))
  },
  async vision() {
    const source = { type: 'base64', media_type: 'image/png', data: png().toString('base64') }
    const content = [{ type: 'text', text: 'What is this?' }, { type: 'image', source }]
    const ask = { model: 'vision', messages: [{ role: 'user', content }], max_tokens: 8 }
    assert((await client.messages.create(ask)).usage.input_tokens > 100)
  },
  async errors() {
    const error = await refused(() => client.messages.create({ model: 'reasonning', messages, max_tokens: 8 }))
    assert(error instanceof Anthropic.BadRequestError)
    const wrong = new Anthropic({ baseURL, apiKey: 'sk-wrong' })
    const denied = await refused(() => wrong.messages.create({ model: 'reasoning', messages, max_tokens: 8 }), 'API key')
    assert(denied instanceof Anthropic.AuthenticationError)
  },
})
