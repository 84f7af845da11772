"""Everything that the page says, in English and in Chinese, and which of the two a visitor reads."""

ENGLISH, CHINESE = "en", "zh-CN"

WORDS = {
    "question": ("Ask about a picture: drop, paste or choose one", "上传、拖入或粘贴图片，然后提问"),
    "conversation": ("Conversation", "对话"),
    "new": ("New conversation", "新对话"),
    "download": ("Download the conversation", "下载对话"),
    "camera": ("Take a picture", "拍照"),
    "options": ("How it answers", "回答方式"),
    "temperature": ("Temperature", "温度 (temperature)"),
    "temperature_info": ("0: always the likeliest word; higher: more varied", "0 表示总选最可能的词；越高越多样"),
    "top_p": ("Top p", "核采样 (top p)"),
    "top_p_info": ("Only words that make up this share of probability", "只从累计概率达到此值的词中选择"),
    "top_k": ("Top k", "候选词数 (top k)"),
    "top_k_info": ("Only this many of the likeliest words; 0: all", "只从最可能的若干个词中选择；0 表示不限"),
    "repetition_penalty": ("Repetition penalty", "重复惩罚"),
    "repetition_penalty_info": ("1: none; above 1: repeats itself less", "1 表示不惩罚；大于 1 时更少重复"),
    "max_tokens": ("Longest answer, tokens", "回答的最大长度（token 数）"),
    "max_tokens_info": ("0: as long as it fits", "0 表示不限，直到放不下为止"),
    "models": ("Models", "模型"),
    "model_facts": (
        "A picture takes {picture_range} tokens of {session_len}; weights {weights_gb} GB, GPU with {card_gb} GB",
        "一张图片占 {picture_range} 个 token，会话共 {session_len} 个；权重 {weights_gb} GB，显存 {card_gb} GB",
    ),
    "describe": ("Describe the picture.", "请描述图中内容"),
    "notice": ("Please note", "请注意"),
    "close": ("Close", "关闭"),
    "enlarge": ("Show the picture large", "放大图片"),
    "empty": ("Type a question, or add a picture.", "请输入问题，或添加图片。"),
    "welcome": ("Show it a picture and ask.", "给它看一张图片，然后提问。"),
    "welcome_more": ("Several pictures and follow-up questions work too.", "也可以一次给多张图片，并继续追问。"),
    "state_starting": ("Starting", "正在启动"),
    "state_preparing weights": ("Preparing the weights", "正在准备权重"),
    "state_loading vision tower": ("Loading the vision tower", "正在加载视觉模型"),
    "state_loading language model": ("Loading the language model", "正在加载语言模型"),
    "state_probing": ("Trying a first question", "正在试答第一个问题"),
    "state_ready": ("Ready", "已就绪"),
    "state_asleep": ("Sleeping until it is asked", "休眠中，提问后加载"),
    "state_being put away": ("Making room for another model", "正在为另一个模型让出显存"),
    "state_failed": ("The model could not be loaded", "模型加载失败"),
    "state_draining": ("Finishing its last answers", "正在完成最后的回答"),
    "state_not answering": ("Not answering; it is being restarted", "没有响应，正在重启"),
    "state_GPU gone": ("The GPU is gone; tell the operator", "GPU 不可用，请联系管理员"),
    "state_waking": ("Being loaded", "正在加载"),
    "state_gone": ("No longer served here", "已不再提供"),
    "state_away": ("No server can be reached", "暂时连接不到模型服务"),
    "state_lost": ("Connection lost; trying again", "连接已断开，正在重试"),
    "page_model": ("Model that answers", "回答的模型"),
    "model_costs": (
        "A picture takes {image_tokens} tokens of {session_length}",
        "一张图片占 {image_tokens} 个 token，会话共 {session_length} 个",
    ),
    "model_holds": ("A conversation holds {session_length} tokens", "会话共 {session_length} 个 token"),
    "waking": ("The model is being loaded: {percent} %", "正在加载模型：{percent}%"),
    "waking_next": (
        "This model is not loaded yet; it is its turn next.",
        "这个模型尚未加载，接下来轮到它。",
    ),
    "reading": ("Looking at the question: {percent} %", "正在读取问题：{percent}%"),
    "cut": ("The answer reached the length limit and stops here.", "回答已达到长度上限，到此为止。"),
    "picture_unreadable": (
        "“{name}” is not a picture that can be read, or it is damaged. Use PNG, JPEG, WebP, GIF or BMP.",
        "“{name}”不是能读取的图片，或文件已损坏。请使用 PNG、JPEG、WebP、GIF 或 BMP。",
    ),
    "picture_heic": (
        "“{name}” is a HEIC photo. Save or share it as JPEG first (iPhone: Settings › Camera › Formats › Most Compatible).",
        "“{name}”是 HEIC 格式的照片。请先另存为 JPEG（iPhone：设置 › 相机 › 格式 › 兼容性最佳）。",
    ),
    "picture_video": (
        "“{name}” is a video. Use a picture or screenshot instead.",
        "“{name}”是视频。请改用图片或截图。",
    ),
    "picture_animated": (
        "“{name}” is animated. Use a picture with one frame.",
        "“{name}”是动图。请使用只有一帧的图片。",
    ),
    "picture_large": (
        "“{name}” is too large: at most {max_picture_mib} MiB a picture.",
        "“{name}”太大：每张图片最多 {max_picture_mib} MiB。",
    ),
    "picture_pixels": (
        "“{name}” has too many pixels. Make it smaller than 50 million.",
        "“{name}”像素过多。请缩小到 5000 万像素以下。",
    ),
    "picture_narrow": (
        "“{name}” is too long and narrow: one side is more than 200 times the other. Cut out the part you mean.",
        "“{name}”过于细长：一边超过另一边的 200 倍。请裁剪出需要的部分。",
    ),
    "picture_slow": (
        "“{name}” is stored in a way that takes too long to read. Save it anew as a plain JPEG, or take a screenshot.",
        "“{name}”的存储方式读取起来太慢。请另存为普通 JPEG，或改用截图。",
    ),
    "picture_metadata": (
        "“{name}” carries too much besides the picture. Save it anew without metadata, or take a screenshot.",
        "“{name}”附带的信息过多。请去掉元数据后另存，或改用截图。",
    ),
    "picture_gone": (
        "“{name}” is no longer kept here. Start a new conversation and add it again.",
        "“{name}”已不再保存。请开始新对话，并重新添加。",
    ),
    "pictures_many": (
        "At most {max_pictures} pictures fit a conversation. Start a new one.",
        "一次对话最多 {max_pictures} 张图片。请开始新对话。",
    ),
    "error_away": (
        "The model cannot be reached right now. Wait a moment, then press retry.",
        "暂时连接不到模型服务。请稍等片刻，再点重试。",
    ),
    "error_not_ready": (
        "The model is starting or being updated. When the line at the top says Ready, press retry.",
        "模型正在启动或更新。等页面顶部显示“已就绪”后，再点重试。",
    ),
    "error_model_gone": (
        "This model is no longer served here. Choose another at the top, then press retry.",
        "这里已不再提供这个模型。请在页面顶部换一个模型，再点重试。",
    ),
    "error_busy": (
        "Many people are asking right now. Wait a few seconds, then press retry.",
        "现在提问的人较多。请等几秒，再点重试。",
    ),
    "error_insufficient_quota": (
        "You have used what you may for now. Your use, at the top of the page, says what is left and when that resets.",
        "你的额度目前已用完。页面顶部的“我的用量”会显示剩余额度和重置时间。",
    ),
    "error_rate_limit_exceeded": (
        "You have asked as much as you may in so short a time. Wait a minute, then press retry.",
        "你在短时间内的提问已达上限。请等一分钟，再点重试。",
    ),
    "quota_own": (
        "You have used {used} of {most} {measure} a {period}; this resets in {left}.",
        "{period}{measure}已使用 {used}，上限为 {most}；{left}后重置。",
    ),
    "quota_group": (
        "Your group has used {used} of {most} {measure} a {period}; this resets in {left}.",
        "你所在的组{period}{measure}已使用 {used}，上限为 {most}；{left}后重置。",
    ),
    "quota_requests": ("questions", "提问次数"),
    "quota_tokens": ("tokens", " token 数"),
    "quota_images": ("pictures", "图片数"),
    "quota_minute": ("minute", "每分钟"),
    "quota_day": ("day", "每天"),
    "quota_month": ("month", "每月"),
    "left_days": ("{count} days", "{count} 天"),
    "left_hours": ("{count} hours", "{count} 小时"),
    "left_minutes": ("{count} minutes", "{count} 分钟"),
    "left_seconds": ("{count} seconds", "{count} 秒"),
    "batches": ("Batches", "批处理"),
    "own_use": ("Your use", "我的用量"),
    "error_context_length_exceeded": (
        "This is too long for the model. Start a new conversation, shorten the question, or use fewer pictures.",
        "内容太长，模型放不下了。请开始新对话、缩短问题，或减少图片。",
    ),
    "error_invalid_image": (
        "The model cannot use one of these pictures. Start a new conversation with another, or save it anew as JPEG.",
        "模型无法使用其中一张图片。请开始新对话并换一张，或另存为 JPEG 再试。",
    ),
    "error_request_too_large": (
        "The pictures are too large together. Use smaller or fewer ones.",
        "图片加起来太大。请使用更小或更少的图片。",
    ),
    "error_invalid_api_key": (
        "The page's own API key is not accepted. Tell the operator.",
        "网页使用的 API 密钥无效，请联系管理员。",
    ),
    "error_visitor_ended": (
        "Your account on this page has ended. If this is a mistake, tell the operator.",
        "你在本网页的账户已失效。如有疑问，请联系管理员。",
    ),
    "error_timeout": (
        "The model did not answer in time. Press retry.",
        "模型没有及时回答，请点重试。",
    ),
    "error_broken": (
        "The answer broke off: the connection to the model was lost. Press retry.",
        "回答中断：与模型的连接断开了。请点重试。",
    ),
    "error_refused": (
        "The model did not accept this question. Change it or the options at the right, and ask again.",
        "模型没有接受这个问题。请修改问题或右侧的选项，然后再问一次。",
    ),
    "failed": (
        "Something went wrong on this page. Press retry; if it fails again, tell the operator.",
        "网页出错了。请点重试；如果仍然出错，请联系管理员。",
    ),
    "page_busy": (
        "Too many requests from here. Wait a few seconds, then ask again.",
        "这里发出的请求太多。请等几秒再问。",
    ),
    "page_away": (
        "This page's server cannot be reached right now. It is tried again by itself; ask again when the line at the top says Ready.",
        "暂时连接不到网页服务，页面会自动重试。等页面顶部显示“已就绪”后，再问一次。",
    ),
    "page_broken": (
        "The connection broke while the answer was coming. When the line at the top says Ready, press retry or ask again.",
        "回答途中连接断开。等页面顶部显示“已就绪”后，再点重试或重新提问。",
    ),
    "page_large": ("This question is too large. Start a new conversation.", "这个问题太大。请开始新对话。"),
    "files_many": (
        "You have uploaded as much as one visitor may. Wait until earlier pictures are removed, or use smaller ones.",
        "你上传的图片已达到每位访客的上限。请等较早的图片被清除，或使用更小的图片。",
    ),
    "files_full": (
        "There is no room for more pictures right now. Try again later, or tell the operator.",
        "暂时没有空间存放更多图片。请稍后再试，或联系管理员。",
    ),
    "page_refused": ("This page is out of date or not logged in. Load it again.", "网页已过期或尚未登录。请刷新页面。"),
    "error_engine_error": (
        "The model failed on this question. Press retry; if it fails again, tell the operator.",
        "模型在回答这个问题时出错。请点重试；如果仍然出错，请联系管理员。",
    ),
}


def language_of(accept: str) -> str:
    """The language for an Accept-Language header: Chinese if it is preferred to English."""
    wanted = []
    for part in accept.split(","):
        tag, _, weight = part.strip().partition(";q=")
        wanted.append((-_number(weight), tag.lower()))
    for _, tag in sorted(wanted, key=lambda item: item[0]):
        if tag.startswith("zh"):
            return CHINESE
        if tag.startswith("en"):
            return ENGLISH
    return ENGLISH


def _number(weight: str) -> float:
    try:
        return float(weight or 1)
    except ValueError:
        return 0.0


def say(language: str, word: str, /, **values: object) -> str:
    """A sentence in the given language."""
    return WORDS[word][language == CHINESE].format(**values)


def in_both(english: str, chinese: str, tag: str = "span") -> str:
    """HTML text in both languages; the style sheet shows the visitor's."""
    return f'<{tag} lang="{ENGLISH}">{english}</{tag}><{tag} lang="{CHINESE}">{chinese}</{tag}>'


def translations() -> dict[str, dict[str, str]]:
    """{language: {name: text}} for the browser; Chinese under every tag that browsers use for it."""
    english = {name: pair[0] for name, pair in WORDS.items()}
    chinese = {name: pair[1] for name, pair in WORDS.items()}
    return {"en": english} | {tag: chinese for tag in ("zh", "zh-CN", "zh-TW", "zh-HK", "zh-SG")}
