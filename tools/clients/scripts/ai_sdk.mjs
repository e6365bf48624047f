// Vercel's AI SDK 6, with the provider that PROVIDER names: `openai` (Responses is its default) or `openai-compatible`.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { API_KEY, BASE_URL, MODEL, PERSON, QUESTION, WEATHER } from "./checks.mjs";
import { check, collect, expect, isPerson, isText, run, thrown, tooLong } from "./checks.mjs";

const address = { baseURL: `${BASE_URL}/v1`, apiKey: API_KEY };
const openai = createOpenAI(address);
const compatible = createOpenAICompatible({ name: "gptoss", includeUsage: true, supportsStructuredOutputs: true, ...address });
const models =
  process.env.PROVIDER === "openai" ? { responses: openai(MODEL), chat: openai.chat(MODEL) } : { chat: compatible(MODEL) };

const weather = tool({
  description: "Gets the current weather of a city.",
  inputSchema: z.object({ location: z.string() }),
  execute: async () => "21 degrees Celsius, sunny",
});
const Person = z.object({ name: z.string(), age: z.number() });
const tools = { get_weather: weather };

for (const [api, model] of Object.entries(models)) {
  const given = { model, temperature: 0, maxRetries: 0 };

  check(`${api}_text`, async () => {
    const { text, usage } = await generateText({ ...given, prompt: QUESTION });
    isText(text, "Paris");
    expect(usage.outputTokens > 0, usage);
  });

  check(`${api}_system`, async () => {
    isText((await generateText({ ...given, system: "Answer in French.", prompt: QUESTION })).text, "Paris");
  });

  check(`${api}_stream`, async () => {
    const result = streamText({ ...given, prompt: QUESTION });
    isText((await collect(result.textStream)).join(""), "Paris");
    expect((await result.usage).outputTokens > 0, "no usage");
  });

  check(`${api}_tool`, async () => {
    isText((await generateText({ ...given, prompt: WEATHER, tools, stopWhen: stepCountIs(3) })).text, "21");
  });

  check(`${api}_tool_streamed`, async () => {
    const result = streamText({ ...given, prompt: WEATHER, tools, stopWhen: stepCountIs(3) });
    const parts = await collect(result.fullStream);
    const error = parts.find((part) => part.type === "error");
    expect(!error, String(error?.error?.message ?? error?.error));
    isText(await result.text, "21");
  });

  check(`${api}_tool_choice_none`, async () => {
    const result = await generateText({ ...given, prompt: WEATHER, tools, toolChoice: "none" });
    expect(!result.toolCalls.length, result.toolCalls);
    isText(result.text);
  });

  check(`${api}_tool_choice_required`, async () => {
    const result = await generateText({ ...given, prompt: QUESTION, tools, toolChoice: "required" });
    expect(result.toolCalls[0]?.toolName === "get_weather" && !result.toolCalls[0].invalid, result.toolCalls);
  });

  check(`${api}_tool_choice_named`, async () => {
    const toolChoice = { type: "tool", toolName: "get_weather" };
    const result = await generateText({ ...given, prompt: QUESTION, tools, toolChoice });
    expect(result.toolCalls[0]?.toolName === "get_weather" && !result.toolCalls[0].invalid, result.toolCalls);
  });

  check(`${api}_object`, async () => {
    isPerson((await generateText({ ...given, prompt: PERSON, output: Output.object({ schema: Person }) })).output);
  });

  check(`${api}_object_streamed`, async () => {
    const result = streamText({ ...given, prompt: PERSON, output: Output.object({ schema: Person }) });
    await collect(result.partialOutputStream);
    isPerson(await result.output);
  });

  check(`${api}_object_beside_a_tool`, async () => {
    const output = Output.object({ schema: Person });
    const result = await generateText({ ...given, prompt: WEATHER, tools, output, stopWhen: stepCountIs(3) });
    expect(result.steps.some((step) => step.toolCalls.length), "no call");
  });

  check(`${api}_second_turn`, async () => {
    const first = await generateText({ ...given, prompt: "My name is Ada." });
    const messages = [
      { role: "user", content: "My name is Ada." },
      ...first.response.messages,
      { role: "user", content: "What is my name?" },
    ];
    isText((await generateText({ ...given, messages })).text, "Ada");
  });

  check(`${api}_error_too_long`, async () => {
    const long = await tooLong();
    const error = await thrown(() => generateText({ ...given, prompt: long }));
    expect(error.statusCode === 400 && error.responseBody.includes("context_length_exceeded"), `${error.responseBody}`);
  });

  if (api === "chat") {
    check("chat_stop", async () => {
      const { text } = await generateText({ ...given, prompt: QUESTION, stopSequences: [" is"] });
      isText(text);
      expect(!text.includes(" is"), text);
    });
  }
}

await run();
