// A reporter of `node --test`: one JSON object per result of a test, and one at the end, so that a cut file is noticed.
export default async function* report(source) {
  let results = 0;
  for await (const { type, data } of source) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const error = data.details?.error;
    results += 1;
    yield `${JSON.stringify({
      type: type === 'test:pass' ? 'passed' : 'failed',
      name: String(data.name),
      nesting: data.nesting,
      file: data.file ?? '',
      line: data.line ?? null,
      suite: data.details?.type === 'suite',
      skipped: data.skip !== undefined || data.todo !== undefined,
      inner: error?.failureType === 'subtestsFailed',
      message: error === undefined ? '' : String(error.cause?.message ?? error.message ?? error),
    })}\n`;
  }
  yield `${JSON.stringify({ type: 'end', results })}\n`;
}
