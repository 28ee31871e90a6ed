// The AI SDK, by its provider for servers that are like OpenAI's.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'
import { LONG, TOOL_ANSWER, assert, png, refused, run, said } from './cases.mjs'

globalThis.AI_SDK_LOG_WARNINGS = false
const roundhouse = createOpenAICompatible({
  name: 'roundhouse',
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: process.env.OPENAI_API_KEY,
  supportsStructuredOutputs: true,
})
const model = roundhouse('reasoning')

await run('ai', {
  async chat() {
    said((await generateText({ model, prompt: 'Hello', maxOutputTokens: 8 })).text)
  },
  async stream() {
    const answer = streamText({ model, prompt: 'Hello', maxOutputTokens: 40 })
    let texts = 0
    for await (const text of answer.textStream) texts += text ? 1 : 0
    said(texts > 1)
  },
  async tools() {
    const list_files = tool({
      description: 'The files.',
      inputSchema: z.object({}),
      strict: true, // then vLLM keeps the arguments to their schema
      execute: async () => TOOL_ANSWER,
    })
    const answer = await generateText({
      model,
      prompt: 'Which files are there?',
      tools: { list_files },
      maxOutputTokens: LONG,
      stopWhen: stepCountIs(2),
      prepareStep: ({ stepNumber }) => (stepNumber === 0 ? { toolChoice: { type: 'tool', toolName: 'list_files' } } : {}),
    })
    assert(answer.steps.length === 2, `${answer.steps.length} steps`)
    assert(answer.steps[0].toolResults[0].output === TOOL_ANSWER)
  },
  async structured() {
    const schema = z.object({ on: z.boolean() })
    const { object } = await generateObject({ model, schema, prompt: 'Is it on?', maxOutputTokens: LONG })
    assert(typeof object.on === 'boolean')
  },
  async embeddings() {
    const { embeddings } = await embedMany({ model: roundhouse.textEmbeddingModel('embedding'), values: ['one', 'two'] })
    assert(embeddings.length === 2 && embeddings[0].length > 8)
  },
  async vision() {
    const content = [{ type: 'text', text: 'What is this?' }, { type: 'image', image: png() }]
    const messages = [{ role: 'user', content }]
    const answer = await generateText({ model: roundhouse('vision'), messages, maxOutputTokens: 8 })
    assert(answer.usage.inputTokens > 100)
  },
  async errors() {
    const error = await refused(() => generateText({ model: roundhouse('reasonning'), prompt: 'Hello', maxRetries: 0 }))
    assert(error.statusCode === 400)
  },
})
